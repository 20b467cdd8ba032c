//! Asking a running hub over its HTTP API.

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
        url.set_path(path);
        if let (Some(name), Ok(mut segments)) = (name, url.path_segments_mut()) {
            segments.push(name);
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

/// Text from outside for a terminal: control characters are shown, not obeyed.
pub(super) fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
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
    }
}
