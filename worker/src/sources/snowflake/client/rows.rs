//! A result: its partitions in order, the next few fetched ahead, every row counted.

use std::collections::VecDeque;

use freshet_core::connector::{Cell, Row};
use freshet_core::error::{Code, Error, Result};
use freshet_core::planted::{Bug, planted};

use super::account::Asked;
use super::answer::Answer;
use super::body::{Ahead, Body, BodyError};
use super::{Client, malformed};
use crate::sources::snowflake::decode::{CellType, Event, Malformed, RowType};

/// Partitions fetched ahead of the one that is read.
const AHEAD: usize = 3;

/// The rows of a statement, in order.
///
/// What `partitionInfo` and `numRows` announce is compared with what came: fewer or more rows are an error, never
/// the end. A partition that breaks off is fetched again, and its rows that were given already are passed over.
pub struct Rows {
    client: Client,
    answer: Answer,
    handle: Option<String>,
    as_text: bool,
    types: Vec<CellType>,
    body: Option<Body>,
    /// The partition that is read.
    number: usize,
    /// Its rows that were read from this body, and that were given to the caller.
    read: u64,
    given: u64,
    /// Rows given of all partitions.
    total: u64,
    ahead: VecDeque<Ahead>,
    /// How often a body broke off since a row was given.
    cuts: u32,
    /// What was asked, until its id is known.
    asked: Option<Asked>,
}

impl Rows {
    /// Opens a result: reads up to its first row.
    pub(super) async fn open(client: Client, body: Body, handle: Option<String>, as_text: bool) -> Result<Self> {
        let mut rows = Self {
            client,
            answer: Answer::default(),
            handle,
            as_text,
            types: Vec::new(),
            body: Some(body),
            number: 0,
            read: 0,
            given: 0,
            total: 0,
            ahead: VecDeque::new(),
            cuts: 0,
            asked: None,
        };
        rows.begin().await?;
        Ok(rows)
    }

    /// Has the statement written down, as soon as its id is known: with the first rows, or at the end.
    pub(super) fn account(&mut self, asked: Asked) {
        self.asked = Some(asked);
        self.write_down();
    }

    fn write_down(&mut self) {
        if let Some(handle) = &self.handle
            && let Some(asked) = self.asked.take()
        {
            self.client.account(&asked, handle, self);
        }
    }

    /// The rows and bytes that were announced, of all partitions.
    pub(super) fn announced_all(&self) -> (u64, u64) {
        let Some(metadata) = &self.answer.metadata else { return (0, 0) };
        let info = metadata.partition_info.as_deref().unwrap_or_default();
        let bytes = info.iter().filter_map(|info| info.uncompressed_size).sum();
        (metadata.num_rows.unwrap_or_else(|| info.iter().map(|info| info.row_count).sum()), bytes)
    }

    /// The columns, in order; names may repeat.
    #[must_use]
    pub fn columns(&self) -> &[RowType] {
        self.answer.metadata.as_ref().map_or(&[], |metadata| &metadata.row_type)
    }

    /// The statement's handle, once it is known; at the latest when the rows are at their end.
    #[must_use]
    pub fn handle(&self) -> Option<&str> {
        self.handle.as_deref()
    }

    /// The handles of a script's statements, in order; known when the rows are at their end.
    #[must_use]
    pub fn child_handles(&self) -> &[String] {
        &self.answer.child_handles
    }

    /// Fills the next row; false at the end.
    ///
    /// # Errors
    /// `snowflake.answer_malformed` for bytes or counts that break the contract, `snowflake.connection_lost` when a
    /// partition breaks off again and again, `snowflake.result_too_large`, `snowflake.result_gone`.
    pub async fn next(&mut self, row: &mut Row) -> Result<bool> {
        loop {
            let Some(body) = &mut self.body else { return Ok(false) };
            match body.next(row).await {
                Ok(Event::Row) => {
                    self.read += 1;
                    if self.read > self.given {
                        self.given = self.read;
                        self.total += 1;
                        self.cuts = 0;
                        return Ok(true);
                    }
                }
                Ok(Event::Member(name, value)) if self.number == 0 => self.take(&name, &value)?,
                Ok(Event::Member(..) | Event::Data | Event::More) => {}
                Ok(Event::End) => self.turn().await?,
                Err(BodyError::Cut(error)) => self.reopen(error).await?,
                Err(BodyError::Malformed(error)) => return Err(self.unread(error)),
            }
        }
    }

    /// Reads up to where the rows of the first partition begin.
    async fn begin(&mut self) -> Result<()> {
        let mut row = Row::default();
        while let Some(body) = &mut self.body {
            match body.next(&mut row).await {
                Ok(Event::Member(name, value)) => self.take(&name, &value)?,
                Ok(Event::Data) if self.answer.metadata.is_some() => {
                    self.settle_types()?;
                    let types = self.types.clone();
                    if let Some(body) = &mut self.body {
                        body.expect(types);
                    }
                    self.look_ahead();
                    return Ok(());
                }
                // The rows came before what they hold: they are passed over, and fetched again.
                Ok(Event::Data | Event::Row | Event::More) => {}
                Ok(Event::End) => return self.begin_late().await,
                Err(BodyError::Cut(error)) => self.reopen(error).await?,
                Err(BodyError::Malformed(error)) => return Err(self.unread(error)),
            }
        }
        Ok(())
    }

    async fn begin_late(&mut self) -> Result<()> {
        self.answer.refuse_incomplete()?;
        self.settle_types()?;
        if self.partitions() == 1 && self.announced(0) == Some(0) {
            self.body = None;
            return Ok(());
        }
        self.fetch(0).await
    }

    fn take(&mut self, name: &str, value: &[u8]) -> Result<()> {
        self.answer.take(name, value)?;
        if self.handle.is_none() {
            self.handle.clone_from(&self.answer.handle);
            self.write_down();
        }
        self.answer.refuse_incomplete()
    }

    fn settle_types(&mut self) -> Result<()> {
        let metadata = self.answer.metadata.as_ref().ok_or_else(|| malformed("a result without its columns"))?;
        let of = |column: &RowType| {
            if self.as_text {
                return Ok(CellType::Text);
            }
            CellType::of(column).ok_or_else(|| unsupported(column))
        };
        self.types = metadata.row_type.iter().map(of).collect::<Result<_>>()?;
        Ok(())
    }

    fn partitions(&self) -> usize {
        let info = self.answer.metadata.as_ref().and_then(|metadata| metadata.partition_info.as_ref());
        info.map_or(1, |info| info.len().max(1))
    }

    /// How many rows a partition is to have; none where Snowflake does not say.
    fn announced(&self, number: usize) -> Option<u64> {
        let metadata = self.answer.metadata.as_ref()?;
        match metadata.partition_info.as_deref() {
            None | Some([]) => metadata.num_rows,
            Some(info) => info.get(number).map(|info| info.row_count),
        }
    }

    /// A partition is at its end: counts it, and goes to the next.
    async fn turn(&mut self) -> Result<()> {
        let announced = self.announced(self.number).filter(|_| !planted(Bug::RowsNotCounted));
        if announced.is_some_and(|announced| announced != self.read) {
            let told = format!("{} rows where {} are announced", self.read, announced.unwrap_or(0));
            return Err(self.placed(malformed(&told)));
        }
        self.body = None;
        if self.number + 1 < self.partitions() {
            self.number += 1;
            (self.read, self.given) = (0, 0);
            return self.next_partition().await;
        }
        let all = self.answer.metadata.as_ref().and_then(|metadata| metadata.num_rows);
        let all = all.filter(|_| !planted(Bug::RowsNotCounted));
        if all.is_some_and(|all| all != self.total) {
            return Err(malformed(&format!("{} rows where {} are announced", self.total, all.unwrap_or(0))));
        }
        Ok(())
    }

    async fn next_partition(&mut self) -> Result<()> {
        let ahead = self.ahead.pop_front();
        self.look_ahead();
        match ahead {
            None => self.fetch(self.number).await,
            Some(ahead) => match Body::of_ahead(ahead).await {
                Ok(mut body) => {
                    body.expect(self.types.clone());
                    self.body = Some(body);
                    Ok(())
                }
                Err(error) => Err(self.placed(error)),
            },
        }
    }

    /// Begins to fetch the next partitions, as soon as the handle is known.
    fn look_ahead(&mut self) {
        let Some(handle) = self.handle.clone() else { return };
        while self.ahead.len() < AHEAD && self.number + 1 + self.ahead.len() < self.partitions() {
            let number = self.number + 1 + self.ahead.len();
            self.ahead.push_back(Ahead::start(self.client.clone(), handle.clone(), number));
        }
    }

    async fn fetch(&mut self, number: usize) -> Result<()> {
        let handle = self.handle.as_deref().ok_or_else(|| malformed("a result without a handle"))?;
        let mut body = Body::of(self.client.partition(handle, number).await?);
        body.expect(self.types.clone());
        self.body = Some(body);
        Ok(())
    }

    /// A body broke off: the partition is fetched again.
    async fn reopen(&mut self, error: Error) -> Result<()> {
        self.cuts += 1;
        let pace = self.client.0.settings.pace;
        let Some(handle) = self.handle.clone().filter(|_| self.cuts < pace.tries) else {
            return Err(self.placed(error));
        };
        tokio::time::sleep(pace.wait(self.cuts)).await;
        self.read = 0;
        if self.types.is_empty() {
            // Not even the columns came: the whole answer is asked for again.
            let response = match self.client.call(&super::Call::poll(&handle)).await? {
                super::Reply::Result(response) => response,
                super::Reply::Running(_) => return Err(malformed("a statement that was done runs again")),
            };
            self.body = Some(Body::of(response));
            return Ok(());
        }
        self.fetch(self.number).await
    }

    /// What does not read, by the name of its column if it is a cell.
    fn unread(&self, error: Malformed) -> Error {
        let told = match error.column.and_then(|place| self.columns().get(place)) {
            Some(column) => format!("a value of the column `{}` does not read", column.name),
            None => "a body does not read".to_owned(),
        };
        malformed(&format!("{told} ({})", self.place())).caused_by(error)
    }

    /// An error with the place where it was met.
    fn placed(&self, error: Error) -> Error {
        Error::new(error.code, format!("{} ({})", error.message, self.place())).caused_by(error.chain())
    }

    fn place(&self) -> String {
        let handle = self.handle.as_deref().unwrap_or("not known");
        format!("partition {}, row {}, statement {handle}", self.number, self.read)
    }
}

/// A column whose type cannot be sent exactly.
pub(in crate::sources::snowflake) fn unsupported(column: &RowType) -> Error {
    let told = format!("the column `{}` has the type {}, which cannot be sent exactly", column.name, column.type_name);
    Error::new(Code::ModelTypeUnsupported, told)
}

/// A cell of a row that was read as texts.
pub(super) fn text(row: &Row, place: usize) -> Option<String> {
    match row.cells().get(place) {
        Some(Cell::Text(span)) => Some(String::from_utf8_lossy(row.bytes(*span)).into_owned()),
        _ => None,
    }
}
