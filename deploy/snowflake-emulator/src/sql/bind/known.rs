//! The relations that a statement names, fetched before it is bound.

use std::collections::HashMap;
use std::ops::ControlFlow;

use sqlparser::ast::{self, Expr, FunctionArg, FunctionArgExpr, ObjectName, Value, Visit, Visitor};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::sql::catalog::{self, Relation};
use crate::sql::error::SqlError;
use crate::sql::names::{self, Context, FullName};

/// What each name of a statement means, views and sources of streams included.
#[derive(Debug, Default)]
pub struct Known {
    relations: HashMap<FullName, Result<Relation, SqlError>>,
    /// Streams read as tables: a consuming statement moves their offsets.
    pub streams_read: Vec<i64>,
}

impl Known {
    /// Fetches every relation that a part of a statement names.
    ///
    /// # Errors
    /// Only when Postgres fails: a name that means nothing is an error when it is used.
    pub async fn fetch<T: Visit>(
        connection: &mut PgConnection,
        context: &Context,
        session: Uuid,
        part: &T,
    ) -> Result<Self, SqlError> {
        let mut known = Self::default();
        let mut waiting = vec![(context.clone(), named_by(part))];
        while let Some((context, found)) = waiting.pop() {
            for parts in found.relations {
                if let Some(Relation::Stream(stream)) =
                    known.add(connection, &context, &parts, session, &mut waiting).await
                {
                    known.streams_read.push(stream.id);
                }
            }
            for parts in found.mentions {
                known.add(connection, &context, &parts, session, &mut waiting).await;
            }
        }
        known.streams_read.sort_unstable();
        known.streams_read.dedup();
        Ok(known)
    }

    async fn add(
        &mut self,
        connection: &mut PgConnection,
        context: &Context,
        parts: &[String],
        session: Uuid,
        waiting: &mut Vec<(Context, Named)>,
    ) -> Option<Relation> {
        let name = context.complete(parts).ok()?;
        if let Some(found) = self.relations.get(&name) {
            return found.as_ref().ok().cloned();
        }
        let found = catalog::relation(connection, context, parts, session).await;
        let mut inner = found.as_ref().ok();
        while let Some(relation) = inner {
            inner = match relation {
                Relation::View(view) => {
                    waiting.push((view.context.clone(), named_by(&view.query)));
                    None
                }
                Relation::Stream(stream) => stream.source.as_deref().ok(),
                Relation::Table(_) => None,
            };
        }
        let answer = found.as_ref().ok().cloned();
        self.relations.insert(name, found);
        answer
    }

    /// Returns what a name means.
    ///
    /// # Errors
    /// 002003 when it means nothing.
    pub fn get(&self, context: &Context, parts: &[String]) -> Result<&Relation, SqlError> {
        let name = context.complete(parts)?;
        match self.relations.get(&name) {
            Some(Ok(relation)) => Ok(relation),
            Some(Err(error)) => Err(error.clone()),
            None => Err(SqlError::missing("Object", &name)),
        }
    }
}

/// The names in a part of a statement.
#[derive(Debug, Default)]
struct Named {
    relations: Vec<Vec<String>>,
    /// Named in a string: `SYSTEM$STREAM_HAS_DATA('s')`, `AT (STREAM => 's')`.
    mentions: Vec<Vec<String>>,
}

impl Visitor for Named {
    type Break = ();

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
        if let Ok(parts) = names::parts(name) {
            self.relations.push(parts);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expression
            && let Some(parts) = stream_in_string(function).and_then(|text| names::parse(&text).ok())
        {
            self.mentions.push(parts);
        }
        ControlFlow::Continue(())
    }
}

fn named_by<T: Visit>(part: &T) -> Named {
    let mut named = Named::default();
    let _ = part.visit(&mut named);
    named
}

fn stream_in_string(function: &ast::Function) -> Option<String> {
    if function.name.to_string().to_uppercase().starts_with("SYSTEM$STREAM") {
        return first_string(function);
    }
    stream_argument(function)
}

/// The argument of `AT (STREAM => 's')`.
pub(super) fn stream_argument(function: &ast::Function) -> Option<String> {
    let ast::FunctionArguments::List(list) = &function.args else { return None };
    match list.args.as_slice() {
        [FunctionArg::Named { name, arg: FunctionArgExpr::Expr(Expr::Value(value)), .. }]
            if name.value.eq_ignore_ascii_case("stream") =>
        {
            match &value.value {
                Value::SingleQuotedString(text) => Some(text.clone()),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The first argument, when it is a string.
pub(super) fn first_string(function: &ast::Function) -> Option<String> {
    let ast::FunctionArguments::List(list) = &function.args else { return None };
    match list.args.first()? {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value))) => match &value.value {
            Value::SingleQuotedString(text) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    }
}
