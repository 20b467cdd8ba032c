//! [`Context`]: a message and what was lazily derived from it.

use serde_json::Value;

use crate::Message;
use crate::json::Checked;

/// A message, with the JSON of its payload once somebody asked for it. One context serves all rules of a message.
pub struct Context<'a> {
    message: &'a Message<'a>,
    json: Option<Result<Value, String>>,
}

impl<'a> Context<'a> {
    /// Nothing is parsed yet.
    #[must_use]
    pub fn new(message: &'a Message<'a>) -> Context<'a> {
        Context { message, json: None }
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> &'a Message<'a> {
        self.message
    }

    /// The payload as a JSON tree; `None` if it is no JSON. Parsed when first asked for, and once only. A payload
    /// that is nested deeper than 127 levels counts as no JSON.
    pub fn json(&mut self) -> Option<&Value> {
        self.json_or_reason().ok()
    }

    /// As [`Context::json`]; the error says why it is no JSON.
    pub(crate) fn json_or_reason(&mut self) -> Result<&Value, &str> {
        let payload = self.message.payload;
        let parse = || {
            let text = std::str::from_utf8(payload).map_err(|error| error.to_string())?;
            serde_json::from_str(text).map_err(|error| error.to_string())
        };
        self.json.get_or_insert_with(parse).as_ref().map_err(String::as_str)
    }

    /// Whether the payload is JSON, without building a tree.
    pub(crate) fn is_json(&self) -> bool {
        match &self.json {
            Some(Ok(_)) => true,
            _ => std::str::from_utf8(self.message.payload)
                .is_ok_and(|text| serde_json::from_str::<Checked>(text).is_ok()),
        }
    }
}
