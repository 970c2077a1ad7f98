//! What a person may do with their identities. How one comes to be: `sso/sign_in.rs`.

use serde_json::json;

use super::{Identity, store};
use crate::app::App;
use crate::error::{Code, Error, Result};
use crate::id::{IdentityId, UserId};
use crate::user::ops::{self as person, told_of};

/// A person's identities, newest first.
///
/// # Errors
/// [`Code::Database`].
pub async fn list(app: &App, user: UserId) -> Result<Vec<Identity>> {
    let mut tx = app.db.person(user).await?;
    store::list(&mut tx).await
}

/// Takes an identity away: the issuer's word for it opens nothing any more. Sessions that came by it go on.
///
/// # Errors
/// `request.not_found`; `request.wrong_state` for the last one of a person without a password.
pub async fn unlink(app: &App, user: UserId, id: IdentityId) -> Result<()> {
    let has_password = person::get(app, user).await?.has_password;
    let mut tx = app.db.person(user).await?;
    // Held, so that two at once do not take the last two away.
    let theirs = store::lock(&mut tx).await?;
    let identity = theirs.iter().find(|one| one.id == id).ok_or_else(|| Error::not_found("identity"))?;
    if theirs.len() == 1 && !has_password {
        let told = "without a password this is the only way in; set a password first, by a reset";
        return Err(Error::new(Code::WrongState, told));
    }
    store::delete(&mut tx, id).await?;
    tx.commit().await?;
    let changes = json!({ "identity": id, "issuer": identity.issuer });
    told_of(app, user, None, "user.identity_unlinked", &changes).await
}
