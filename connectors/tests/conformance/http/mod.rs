//! HTTP: a server in this process that answers as it is told to.
//!
//! # Layout
//! - `server`  the server
//! - `answers` what follows from its answers

mod answers;
mod server;

use async_trait::async_trait;

use self::server::{Answer, Server};
use crate::checks;
use crate::proxy::Proxy;
use crate::subject::{LARGE, Received, Subject};

struct HttpSubject {
    server: Server,
    proxy: Proxy,
}

impl HttpSubject {
    async fn new() -> Self {
        let server = Server::start().await;
        server.script(|seen| match seen.path.as_str() {
            _ if seen.method == "OPTIONS" => Answer::status(405),
            "/missing" => Answer::status(404),
            _ if seen.events.iter().any(|event| event.data.len() >= LARGE) => Answer::status(413),
            _ => Answer::status(204),
        });
        let proxy = Proxy::to(server.address.clone()).await;
        Self { server, proxy }
    }
}

#[async_trait(?Send)]
impl Subject for HttpSubject {
    fn kind(&self) -> &'static str {
        "http"
    }

    fn connection(&self) -> String {
        format!("{{ url: \"http://{}/functions\" }}", self.proxy.address())
    }

    fn nowhere(&self) -> String {
        "{ url: \"http://u:hunter2@127.0.0.1:1/f?code=hunter2\", headers: { x-key: hunter2 } }".to_owned()
    }

    fn targets(&self) -> Vec<String> {
        [
            "{ }",
            "{ mode: structured, path: \"{{ topic[1] }}\" }",
            "{ mode: batched, batch_max: 7 }",
            "{ mode: batched, path: \"{{ topic[1] }}\", method: PUT }",
            "{ concurrency: 1 }",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn missing(&self) -> Option<(String, String)> {
        let connection = format!("{{ url: \"http://{}\" }}", self.proxy.address());
        Some((connection, "{ path: missing }".to_owned()))
    }

    fn narrow(&self) -> Option<String> {
        Some("{ mode: batched }".to_owned())
    }

    async fn received(&mut self, _expected: usize) -> Vec<Received> {
        self.server.taken()
    }

    async fn take_away(&mut self) -> bool {
        self.proxy.cut().await;
        true
    }

    async fn bring_back(&mut self) {
        self.proxy.mend().await;
    }
}

#[tokio::test]
async fn conforms() {
    checks::all(HttpSubject::new).await;
}
