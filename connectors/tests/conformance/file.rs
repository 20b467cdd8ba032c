//! Files.

use std::path::PathBuf;

use async_trait::async_trait;
use tempfile::TempDir;

use crate::checks;
use crate::subject::{Received, Subject};

struct FileSubject {
    folder: TempDir,
    read: usize,
}

impl FileSubject {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("here")).unwrap();
        Self { folder, read: 0 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name).join("events.jsonl")
    }
}

#[async_trait(?Send)]
impl Subject for FileSubject {
    fn kind(&self) -> &'static str {
        "file"
    }

    fn connection(&self) -> String {
        format!("{{ path: {:?} }}", self.path("here"))
    }

    fn nowhere(&self) -> String {
        format!("{{ path: {:?} }}", self.path("nowhere"))
    }

    fn targets(&self) -> Vec<String> {
        vec!["{ }".to_owned(), "{ fsync: false }".to_owned()]
    }

    fn missing(&self) -> Option<(String, String)> {
        Some((self.nowhere(), "{ }".to_owned()))
    }

    fn narrow(&self) -> Option<String> {
        Some("{ line_max: 1MiB }".to_owned())
    }

    async fn received(&mut self, _expected: usize) -> Vec<Received> {
        let text = std::fs::read_to_string(self.path("here")).unwrap();
        let received: Vec<_> =
            text.lines().skip(self.read).map(|line| Received::structured(line.as_bytes())).collect();
        self.read += received.len();
        received
    }

    async fn take_away(&mut self) -> bool {
        std::fs::rename(self.folder.path().join("here"), self.folder.path().join("away")).unwrap();
        true
    }

    async fn bring_back(&mut self) {
        std::fs::rename(self.folder.path().join("away"), self.folder.path().join("here")).unwrap();
    }
}

#[tokio::test]
async fn conforms() {
    checks::all(async || FileSubject::new()).await;
}
