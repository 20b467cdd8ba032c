//! Placeholders to values of a message.

use std::borrow::Cow;

use serde_json::Value;

use super::{Path, Placeholder, Step};
use crate::error::Problem;
use crate::{Context, MapError, attributes, topic};

/// What a placeholder stands for in one message.
#[derive(Debug, PartialEq)]
pub(super) enum Found<'v> {
    Text(Cow<'v, str>),
    Bool(bool),
    Small(u8),
    Json(&'v Value),
}

impl Placeholder {
    /// The value, or the default where the value is missing or null.
    pub(super) fn find<'v>(&'v self, cx: &'v mut Context<'_>) -> Result<Found<'v>, MapError> {
        match (self.look_up(cx), &self.default) {
            (Ok(Found::Json(Value::Null)) | Err(_), Some(default)) => Ok(Found::Json(default)),
            (Ok(found), _) => Ok(found),
            (Err(problem), None) => Err(problem.into()),
        }
    }

    fn look_up<'v>(&self, cx: &'v mut Context<'_>) -> Result<Found<'v>, Problem> {
        let message = cx.message();
        let missing = || Problem::Missing(self.written.clone());
        let text = |text| Found::Text(Cow::Borrowed(text));
        match &self.path {
            Path::Topic => Ok(text(message.topic)),
            Path::Level(index) => topic::level(message.topic, *index).map(text).ok_or_else(missing),
            Path::Data(steps) => {
                let json = cx.json_or_reason().map_err(|reason| Problem::NotJson {
                    path: self.written.clone(),
                    reason: reason.to_owned(),
                })?;
                steps
                    .iter()
                    .try_fold(json, |value, step| step.step_into(value))
                    .map(Found::Json)
                    .ok_or_else(missing)
            }
            Path::Payload => std::str::from_utf8(message.payload).map(text).map_err(|_| Problem::NotText),
            Path::Client => Ok(text(message.client)),
            Path::User => message.user.map(text).ok_or_else(missing),
            Path::Qos => Ok(Found::Small(message.qos)),
            Path::Retain => Ok(Found::Bool(message.retain)),
            Path::ContentType => message.content_type.map(text).ok_or_else(missing),
            Path::Property(name) => {
                let property = message.user_properties.iter().find(|(key, _)| key == name);
                property.map(|(_, value)| text(value)).ok_or_else(missing)
            }
            Path::Id => Ok(text(message.id)),
            Path::Time => {
                let mut time = String::new();
                attributes::write_time(message.time_ms, &mut time);
                Ok(Found::Text(Cow::Owned(time)))
            }
        }
    }
}

impl Step {
    fn step_into<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        match self {
            Step::Key(key) => value.as_object()?.get(key),
            Step::Index(index) => {
                let list = value.as_array()?;
                let at = usize::try_from(index.unsigned_abs()).ok()?;
                list.get(if *index < 0 { list.len().checked_sub(at)? } else { at })
            }
        }
    }
}
