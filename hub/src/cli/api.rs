//! Asking a running hub over its HTTP API.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Client, Method, Response, Url};
use serde_json::Value;

use super::Failed;

/// Where the hub answers.
#[derive(Debug, clap::Args)]
pub(super) struct Address {
    /// Address of the hub's HTTP API
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    http: String,
}

impl Address {
    /// Asks; the answer is a good one.
    pub(super) async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Response, Failed> {
        self.request(Method::GET, path, None, query).await
    }

    /// Asks about, or does something to, what stands below `path` under a name from outside, which may have any
    /// characters.
    pub(super) async fn request(
        &self,
        method: Method,
        path: &str,
        name: Option<&str>,
        query: &[(&str, String)],
    ) -> Result<Response, Failed> {
        let base =
            if self.http.contains("://") { self.http.clone() } else { format!("http://{}", self.http) };
        let mut url = Url::parse(&base).map_err(|error| {
            Failed::because(format!("--http `{}`: {error}; write it as 127.0.0.1:8080", self.http))
        })?;
        match name {
            None => url.set_path(path),
            Some(name @ ("." | "..")) => {
                let encoded = name.replace('.', "%2E");
                return Err(Failed::because(format!(
                    "`{name}` cannot be asked for: in a URL it means something else\n  hint: curl --path-as-is \
                     -X {method} '{}{path}/{encoded}'",
                    url.origin().ascii_serialization()
                )));
            }
            // All of it: a URL drops tabs and line ends that are written as they are.
            Some(name) => url.set_path(&format!("{path}/{}", utf8_percent_encode(name, NON_ALPHANUMERIC))),
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let client = Client::builder().no_proxy().build().map_err(Failed::because)?;
        let response = client.request(method, url).send().await.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.text().await.unwrap_or_default();
        Err(Failed::because(refusal(&body).unwrap_or_else(|| format!("{base} answers {status}"))))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failed {
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        Failed::because(format!(
            "no hub answers at {}: {cause}; is it running, and is this its --http address?",
            self.http
        ))
    }
}

/// What a problem document says.
fn refusal(body: &str) -> Option<String> {
    let problem: Value = serde_json::from_str(body).ok()?;
    let error = problem.get("error")?.as_str()?;
    Some(match problem.get("hint").and_then(Value::as_str) {
        Some(hint) => format!("{error}\n  hint: {hint}"),
        None => error.to_owned(),
    })
}

/// Text from outside for a terminal: control characters, and those that cannot be seen or turn the text around, are
/// shown, not obeyed.
pub(super) fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let unseen = matches!(c, '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{feff}');
        let unseen = unseen || ('\u{2060}'..='\u{2069}').contains(&c);
        if c.is_control() || unseen { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_told_with_their_hint() {
        let body = r#"{"status":404,"error":"there is no queue `x`","hint":"look at /api/v1/queues"}"#;
        assert_eq!(refusal(body).as_deref(), Some("there is no queue `x`\n  hint: look at /api/v1/queues"));
        assert_eq!(refusal("<html>"), None);
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(shown("a\u{1b}[2Jb\nü"), "a\\u{1b}[2Jb\\nü");
        assert_eq!(shown("\u{202e}b\u{200b}車"), "\\u{202e}b\\u{200b}車");
    }
}
