//! A model: what is read through a connection, by which key. What is read changes only by a new version.
pub mod ops;
pub(crate) mod store;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::connector::{ModelSpec, Schema};
use crate::id::{ConnectionId, ModelId, ModelVersionId};

/// A model with its current version.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Model {
    /// Its id.
    pub id: ModelId,
    /// Where it is read.
    pub connection_id: ConnectionId,
    /// Its name, unique among those not archived.
    pub name: String,
    /// The current version's number, from 1.
    pub version: i32,
    /// What is read.
    pub spec: ModelSpec,
    /// The key's columns; empty until named or found at the source.
    pub primary_key: Vec<String>,
    /// The columns; none until a worker has looked.
    #[schema(value_type = Option<Vec<crate::connector::Column>>)]
    pub columns: Option<Schema>,
    /// Raised by each change; its `ETag`.
    pub row_version: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was changed last.
    pub updated_at: DateTime<Utc>,
    /// When it was archived.
    pub archived_at: Option<DateTime<Utc>>,
    /// The current version's row.
    #[serde(skip, default = "ModelVersionId::new")]
    pub version_id: ModelVersionId,
}

/// One version of a model.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ModelVersion {
    /// Its number, from 1.
    pub version: i32,
    /// What is read.
    pub spec: ModelSpec,
    /// The key's columns.
    pub primary_key: Vec<String>,
    /// The columns; none until a worker has looked.
    #[schema(value_type = Option<Vec<crate::connector::Column>>)]
    pub columns: Option<Schema>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}
