//! Mail: invitations, proofs of an address, resets. Plain text, over SMTP, from the installation's own address.

use std::sync::Arc;
use std::time::Duration;

use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

use crate::error::{Code, Error, Result};
use crate::settings::Settings;

/// How long a server may take over one mail.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Waits before another try; a mail that fails for good is told in the log, without its text.
const WAITS: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(10), Duration::from_secs(60)];

/// The way out. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Mailer {
    way: Option<Arc<(AsyncSmtpTransport<Tokio1Executor>, Mailbox)>>,
}

/// One mail.
#[derive(Debug, Clone)]
pub struct Mail {
    /// To whom.
    pub to: String,
    /// Its subject; no secret.
    pub subject: String,
    /// Its text; it may hold a word that is good once.
    pub text: String,
}

impl Mailer {
    /// Reads `smtp_url` and `mail_from`; without the first there is no mail.
    ///
    /// # Errors
    /// `platform.settings`, without the URL, which holds a password.
    pub fn new(settings: &Settings) -> Result<Self> {
        let url = settings.smtp_url.expose();
        if url.is_empty() {
            return Ok(Self::default());
        }
        let told = |what: &str| Error::new(Code::Settings, what.to_owned());
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(url).map_err(|_| {
            told("FRESHET_SMTP_URL is not of the form smtps://user:password@host, or smtp://…?tls=required")
        })?;
        let from = settings
            .mail_from
            .parse()
            .map_err(|_| told("FRESHET_MAIL_FROM is not an address; it is needed beside FRESHET_SMTP_URL"))?;
        Ok(Self { way: Some(Arc::new((transport.timeout(Some(TIMEOUT)).build(), from))) })
    }

    /// Whether mail can be sent.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.way.is_some()
    }

    /// Connects and signs in, and sends nothing.
    ///
    /// # Errors
    /// `platform.settings`: the server does not answer, or does not take the login.
    pub async fn try_out(&self) -> Result<()> {
        let Some(way) = &self.way else { return Ok(()) };
        let refused = || Error::new(Code::Settings, "the mail server of FRESHET_SMTP_URL");
        match way.0.test_connection().await {
            Ok(true) => Ok(()),
            Ok(false) => Err(refused().caused_by("it does not answer as it should")),
            Err(error) => Err(refused().caused_by(error)),
        }
    }

    /// Sends a mail in the background: whoever asked for it does not learn from the time whether there was one to send.
    pub fn send(&self, mail: Mail) {
        let Some(way) = self.way.clone() else { return };
        tokio::spawn(async move {
            let subject = mail.subject.clone();
            let message = match message(&way.1, mail) {
                Ok(message) => message,
                Err(error) => return tracing::error!(error = %error.chain(), "the mail `{subject}` cannot be written"),
            };
            for wait in WAITS.iter().map(Some).chain([None]) {
                match (way.0.send(message.clone()).await, wait) {
                    (Ok(_), _) => return,
                    (Err(error), Some(wait)) if !error.is_permanent() => {
                        tracing::warn!(%error, "the mail `{subject}` was not taken; trying again in {wait:?}");
                        tokio::time::sleep(*wait).await;
                    }
                    (Err(error), _) => return tracing::error!(%error, "the mail `{subject}` was not taken"),
                }
            }
        });
    }
}

fn message(from: &Mailbox, mail: Mail) -> Result<Message> {
    let unwritten = |_| Error::invalid("/email", "is no address that mail can be sent to");
    let to = Mailbox::new(None, mail.to.parse().map_err(unwritten)?);
    Message::builder()
        .from(from.clone())
        .to(to)
        .subject(mail.subject)
        .header(ContentType::TEXT_PLAIN)
        .body(mail.text)
        .map_err(|error| Error::new(Code::Internal, "a mail cannot be written").caused_by(error))
}
