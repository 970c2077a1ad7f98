//! Traces, sent to a collector by OTLP over HTTP. Whatever becomes of the collector, nothing waits for it: spans go into a
//! queue of 2 048, a thread of its own sends them, and what does not fit is dropped.

use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_trait::async_trait;
use bytes::Bytes;
use freshet_core::egress::http::tls;
use freshet_core::settings::Settings;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, SpanLimits,
};
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::registry::LookupSpan;

/// Spans that wait, at most.
const QUEUE_MAX: usize = 2_048;
/// How often they are sent.
const SEND_EVERY: Duration = Duration::from_secs(1);
/// How long the collector may take over them.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long the end of the process waits for the last ones.
const LAST: Duration = Duration::from_secs(2);
/// How often the log says that a collector does not take them.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Where spans go, until [`Traces::stop`].
pub struct Traces(Option<SdkTracerProvider>);

impl Traces {
    /// Opens the way to the collector that the settings name, and dials nobody.
    ///
    /// # Errors
    /// When a setting is not of its form.
    pub fn open(settings: &Settings) -> anyhow::Result<Self> {
        let Some(url) = url(settings)? else { return Ok(Self(None)) };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Courier::new()?)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(url)
            .with_headers(headers(settings)?)
            .with_timeout(TIMEOUT)
            .build()
            .context("traces cannot be sent")?;
        let batches =
            BatchConfigBuilder::default().with_max_queue_size(QUEUE_MAX).with_scheduled_delay(SEND_EVERY).build();
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        let service = [
            KeyValue::new("service.name", "freshet"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("process.pid", i64::from(std::process::id())),
        ];
        // Nothing is read from the environment: its variables may name whatever they like.
        let resource = Resource::builder_empty().with_attributes(service).build();
        let ratio = Sampler::TraceIdRatioBased(settings.otlp_ratio);
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_resource(resource)
            .with_span_limits(SpanLimits::default())
            .with_sampler(Sampler::ParentBased(Box::new(ratio)))
            .build();
        Ok(Self(Some(provider)))
    }

    /// Takes Freshet's own spans for the collector. Lines of the log stay where they are: a trace has ids and times.
    pub fn layer<S>(&self) -> Option<impl Layer<S> + use<S>>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let provider = self.0.as_ref()?;
        let tracer: SdkTracer = provider.tracer_with_scope(InstrumentationScope::builder("freshet").build());
        let layer = OpenTelemetryLayer::new(tracer)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false);
        let own = filter_fn(|metadata| metadata.is_span() && metadata.target().starts_with("freshet"));
        Some(layer.with_filter(own.with_max_level_hint(LevelFilter::INFO)))
    }

    /// Sends what waits, for 2 s at most.
    pub async fn stop(self) {
        let Some(provider) = self.0 else { return };
        let stopped = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(LAST));
        if !matches!(tokio::time::timeout(LAST * 2, stopped).await, Ok(Ok(Ok(())))) {
            tracing::warn!("the last spans could not be sent");
        }
    }
}

/// Where the collector takes spans; none when no traces are taken.
///
/// # Errors
/// When the setting is not of its form.
pub fn url(settings: &Settings) -> anyhow::Result<Option<String>> {
    let endpoint = settings.otlp_endpoint.trim_end_matches('/');
    if endpoint.is_empty() {
        return Ok(None);
    }
    let url = url::Url::parse(endpoint).ok().filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
    anyhow::ensure!(url.is_some(), "FRESHET_OTLP_ENDPOINT: must be of the form http://collector:4318");
    anyhow::ensure!((0.0..=1.0).contains(&settings.otlp_ratio), "FRESHET_OTLP_RATIO: must be 0 to 1");
    Ok(Some(format!("{endpoint}/v1/traces")))
}

/// The headers that the collector wants.
///
/// # Errors
/// When the setting is not of its form; what it holds is not repeated.
pub fn headers(settings: &Settings) -> anyhow::Result<HashMap<String, String>> {
    let parts = settings.otlp_headers.expose().split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=').context("FRESHET_OTLP_HEADERS: wants `name=value`")?;
            let fits = http::HeaderName::try_from(name).is_ok() && http::HeaderValue::try_from(value).is_ok();
            anyhow::ensure!(fits, "FRESHET_OTLP_HEADERS: a name or a value is none that HTTP takes");
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect()
}

/// The HTTP client for a collector: TLS by rustls with ring, no redirects.
///
/// # Errors
/// When TLS cannot be set up.
pub fn client() -> anyhow::Result<reqwest::Client> {
    let client = reqwest::Client::builder().tls_backend_preconfigured(tls()?);
    let client = client.redirect(reqwest::redirect::Policy::none()).no_proxy().timeout(TIMEOUT);
    client.build().context("no HTTP client for the collector")
}

/// Carries what the exporter's thread has encoded: on our runtime, for that thread has none.
struct Courier {
    client: reqwest::Client,
    runtime: tokio::runtime::Handle,
    complained: Mutex<Option<Instant>>,
}

impl Courier {
    fn new() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Handle::current();
        Ok(Self { client: client()?, runtime, complained: Mutex::new(None) })
    }

    fn complain(&self, found: &str) {
        let mut complained = self.complained.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if complained.is_none_or(|at| at.elapsed() > COMPLAIN_EVERY) {
            *complained = Some(Instant::now());
            tracing::warn!(error = found, "the collector does not take traces; they are dropped");
        }
    }
}

impl fmt::Debug for Courier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Courier")
    }
}

#[async_trait]
impl HttpClient for Courier {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sending = self.runtime.spawn(async move {
            let (parts, body) = request.into_parts();
            let url = parts.uri.to_string();
            let answer = client.request(parts.method, url).headers(parts.headers).body(body).send().await?;
            let (status, headers) = (answer.status(), answer.headers().clone());
            // Nobody reads what a collector has to say beyond its status.
            Ok::<_, reqwest::Error>((status, headers))
        });
        let sent = sending.await.map_err(HttpError::from).and_then(|sent| sent.map_err(HttpError::from));
        match sent {
            Ok((status, headers)) => {
                if !status.is_success() {
                    self.complain(status.as_str());
                }
                let mut response = Response::new(Bytes::new());
                (*response.status_mut(), *response.headers_mut()) = (status, headers);
                Ok(response)
            }
            Err(error) => {
                self.complain(&error.to_string());
                Err(error)
            }
        }
    }
}
