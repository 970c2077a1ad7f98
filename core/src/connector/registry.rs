//! Typed kinds in, erased kinds out: how `deploy` tells the API and the jobs which connectors there are.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use super::destination::{Destination, DestinationKind};
use super::field::Field;
use super::format::{EncodePlan, Encoder, FormatKind};
use super::sign_in::{Consent, DrawnKey};
use super::source::{ModelSpec, Source, SourceKind};
use crate::egress::Egress;
use crate::error::{Error, Result};

/// A source kind without its types.
#[async_trait]
pub trait SourceEntry: Send + Sync {
    /// Its form.
    fn fields(&self) -> &'static [Field];
    /// Checks settings and returns them in their full form, defaults filled in.
    fn validate(&self, settings: Value) -> Result<Value>;
    /// Checks a model without a connection.
    fn validate_model(&self, model: &ModelSpec) -> Result<()>;
    /// See [`SourceKind::setup_script`].
    fn setup_script(&self, settings: Value) -> Result<String>;
    /// See [`SourceKind::draw_key`].
    fn draw_key(&self, settings: Value, second: bool) -> Result<DrawnKey>;
    /// See [`SourceKind::begin_consent`].
    fn begin_consent(&self, settings: Value, redirect_url: &str) -> Result<Consent>;
    /// See [`SourceKind::open`].
    async fn open(&self, settings: Value, egress: &Arc<Egress>) -> Result<Box<dyn Source>>;
}

/// A destination kind without its types.
#[async_trait]
pub trait DestinationEntry: Send + Sync {
    /// Its form.
    fn fields(&self) -> &'static [Field];
    /// Checks settings and returns them in their full form, defaults filled in.
    fn validate(&self, settings: Value) -> Result<Value>;
    /// See [`DestinationKind::open`].
    async fn open(&self, settings: Value, egress: &Arc<Egress>) -> Result<Box<dyn Destination>>;
}

/// A format kind without its type.
pub trait FormatEntry: Send + Sync {
    /// Makes an encoder.
    fn encoder(&self, plan: EncodePlan) -> Result<Box<dyn Encoder>>;
}

struct Erased<K>(K);

fn parse<S: serde::de::DeserializeOwned>(settings: Value) -> Result<S> {
    serde_path_to_error::deserialize(settings).map_err(|error| Error::from_json("/settings", &error))
}

fn render<S: serde::Serialize>(settings: &S) -> Result<Value> {
    serde_json::to_value(settings).map_err(|error| Error::invalid("/settings", error.to_string()))
}

#[async_trait]
impl<K: SourceKind> SourceEntry for Erased<K> {
    fn fields(&self) -> &'static [Field] {
        K::FIELDS
    }

    fn validate(&self, settings: Value) -> Result<Value> {
        let settings: K::Settings = parse(settings)?;
        self.0.validate(&settings)?;
        render(&settings)
    }

    fn validate_model(&self, model: &ModelSpec) -> Result<()> {
        self.0.validate_model(model)
    }

    fn setup_script(&self, settings: Value) -> Result<String> {
        Ok(self.0.setup_script(&parse(settings)?))
    }

    fn draw_key(&self, settings: Value, second: bool) -> Result<DrawnKey> {
        self.0.draw_key(&parse(settings)?, second)
    }

    fn begin_consent(&self, settings: Value, redirect_url: &str) -> Result<Consent> {
        self.0.begin_consent(&parse(settings)?, redirect_url)
    }

    async fn open(&self, settings: Value, egress: &Arc<Egress>) -> Result<Box<dyn Source>> {
        self.0.open(parse(settings)?, Arc::clone(egress)).await
    }
}

#[async_trait]
impl<K: DestinationKind> DestinationEntry for Erased<K> {
    fn fields(&self) -> &'static [Field] {
        K::FIELDS
    }

    fn validate(&self, settings: Value) -> Result<Value> {
        let settings: K::Settings = parse(settings)?;
        self.0.validate(&settings)?;
        render(&settings)
    }

    async fn open(&self, settings: Value, egress: &Arc<Egress>) -> Result<Box<dyn Destination>> {
        self.0.open(parse(settings)?, Arc::clone(egress)).await
    }
}

impl<K: FormatKind> FormatEntry for Erased<K> {
    fn encoder(&self, plan: EncodePlan) -> Result<Box<dyn Encoder>> {
        self.0.encoder(plan)
    }
}

/// Which connectors there are. Built once by `deploy`; cheap to clone.
#[derive(Clone, Default)]
pub struct Registry {
    sources: BTreeMap<&'static str, Arc<dyn SourceEntry>>,
    destinations: BTreeMap<&'static str, Arc<dyn DestinationEntry>>,
    formats: BTreeMap<&'static str, Arc<dyn FormatEntry>>,
}

impl Registry {
    /// Adds a source kind.
    #[must_use]
    pub fn source<K: SourceKind>(mut self, kind: K) -> Self {
        self.sources.insert(K::NAME, Arc::new(Erased(kind)));
        self
    }

    /// Adds a destination kind.
    #[must_use]
    pub fn destination<K: DestinationKind>(mut self, kind: K) -> Self {
        self.destinations.insert(K::NAME, Arc::new(Erased(kind)));
        self
    }

    /// Adds a format.
    #[must_use]
    pub fn format<K: FormatKind>(mut self, kind: K) -> Self {
        self.formats.insert(K::NAME, Arc::new(Erased(kind)));
        self
    }

    /// The source kind of this name.
    ///
    /// # Errors
    /// `request.invalid`, naming the kinds there are.
    pub fn find_source(&self, kind: &str) -> Result<&Arc<dyn SourceEntry>> {
        self.sources.get(kind).ok_or_else(|| unknown("/kind", self.source_names()))
    }

    /// The destination kind of this name.
    ///
    /// # Errors
    /// `request.invalid`, naming the kinds there are.
    pub fn find_destination(&self, kind: &str) -> Result<&Arc<dyn DestinationEntry>> {
        self.destinations.get(kind).ok_or_else(|| unknown("/kind", self.destination_names()))
    }

    /// The format of this name.
    ///
    /// # Errors
    /// `request.invalid`, naming the formats there are.
    pub fn find_format(&self, name: &str) -> Result<&Arc<dyn FormatEntry>> {
        self.formats.get(name).ok_or_else(|| unknown("/format", self.format_names()))
    }

    /// The names of the source kinds.
    pub fn source_names(&self) -> impl Iterator<Item = &'static str> {
        self.sources.keys().copied()
    }

    /// The names of the destination kinds.
    pub fn destination_names(&self) -> impl Iterator<Item = &'static str> {
        self.destinations.keys().copied()
    }

    /// The names of the formats.
    pub fn format_names(&self) -> impl Iterator<Item = &'static str> {
        self.formats.keys().copied()
    }
}

fn unknown(pointer: &str, names: impl Iterator<Item = &'static str>) -> Error {
    let names: Vec<_> = names.collect();
    Error::invalid(pointer, format!("must be one of: {}", names.join(", ")))
}
