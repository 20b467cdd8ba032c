//! The example with TLS, certificates and rules about topics, done as its README says: what stands in its `sh` blocks is run, and
//! what it says one sees, in the `text` blocks, is seen.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tidemill_tests::mqtt::{Client, Connect};
use tidemill_tests::process::{Process, run};
use tidemill_tests::services::tidemill::{binary, ready_line};
use tidemill_tests::{ports, wait};
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::ServerName;

use super::transports::websocket::{bytes_of, open};

pub(crate) const NAME: &str = "charging-stations";
const LIMIT: Duration = Duration::from_secs(60);
/// The ports of the example.
const PORTS: [&str; 4] = ["8883", "8884", "8443", "8080"];
/// Subscriptions of the two that listen.
const LISTENING: u64 = 2;

/// A copy of the example on ports of its own.
struct Site {
    dir: TempDir,
    ports: [u16; 4],
    started: Vec<Process>,
}

impl Site {
    fn new() -> Site {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(NAME);
        let site = Site {
            dir: tempfile::Builder::new().prefix("tidemill-example-").tempdir().unwrap(),
            ports: PORTS.map(|_| ports::free()),
            started: Vec::new(),
        };
        // What somebody has made there by trying it is left where it is.
        for file in ["README.md", "make-certificates", "tidemill.yaml"] {
            let text = PORTS.iter().zip(site.ports).fold(
                fs::read_to_string(from.join(file)).unwrap_or_else(|error| panic!("{file}: {error}")),
                |text, (port, free)| text.replace(port, &free.to_string()),
            );
            fs::write(site.path(file), text).unwrap();
            fs::set_permissions(site.path(file), fs::metadata(from.join(file)).unwrap().permissions())
                .unwrap();
        }
        site
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// What a shell makes of a block, with the program in its PATH.
    fn shell(&self, block: &str) -> Command {
        let program = binary();
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new("sh");
        command.args(["-e", "-c", block]).current_dir(self.dir.path());
        command.env("PATH", format!("{}:{path}", program.parent().unwrap().display()));
        command
    }

    /// Starts what goes on until it is stopped, in another terminal.
    fn start(&mut self, name: &str, block: &str) -> &mut Process {
        let process = Process::start(name, self.shell(block), self.dir.path(), Signal::KILL);
        self.started.push(process);
        self.started.last_mut().unwrap()
    }

    /// Does a block; each line of `seen` is among what it says.
    async fn does(&self, block: &str, seen: &str) {
        let ended = run("sh", self.shell(block), LIMIT).await;
        assert!(ended.status.success(), "{block}: {}", ended.output());
        assert!(has(&ended.output(), seen), "{block} was to say\n{seen}\nnot\n{}", ended.output());
    }

    /// Subscriptions of all who are connected.
    async fn subscriptions(&self) -> u64 {
        let url = format!("http://127.0.0.1:{}/api/v1/clients?online=true", self.ports[3]);
        let page: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
        let clients = page["clients"].as_array().unwrap();
        clients.iter().filter_map(|client| client["subscription_count"].as_u64()).sum()
    }
}

/// Whether each line of `seen` is a line of `said`, as often as it stands there.
fn has(said: &str, seen: &str) -> bool {
    let count = |text: &str, line: &str| text.lines().filter(|other| *other == line).count();
    seen.lines().all(|line| count(said, line) >= count(seen, line))
}

/// The `sh` blocks of a document, each with the `text` blocks before the next.
fn blocks(document: &str) -> Vec<(String, Vec<String>)> {
    let mut blocks: Vec<(String, Vec<String>)> = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        let Some(kind) = line.strip_prefix("```") else { continue };
        let text = lines.by_ref().take_while(|line| *line != "```").collect::<Vec<_>>().join("\n");
        match kind {
            "sh" => blocks.push((text, Vec::new())),
            "text" => blocks.last_mut().expect("a block of sh before").1.push(text),
            other => panic!("a block of {other:?}"),
        }
    }
    blocks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_the_readme_says_is_so() {
    let mut site = Site::new();
    let blocks = blocks(&fs::read_to_string(site.path("README.md")).unwrap());
    let [build, prepare, serve, olga, station, speak, stranger @ ..] = blocks.as_slice() else {
        panic!("{} blocks", blocks.len())
    };
    assert!(build.0.starts_with("make build"), "{}", build.0);
    let [made] = &prepare.1[..] else { panic!("{prepare:?}") };
    site.does(&prepare.0, made).await;
    let hub = site.start("hub", &serve.0);
    let (mqtt, _) = hub.wait_for("the ready line", LIMIT, |stdout, _| ready_line(stdout)).await;
    assert_eq!(mqtt.len(), 3);
    site.start("olga", &olga.0);
    site.start("station", &station.0);
    wait::until_eq("subscriptions", LIMIT, LISTENING, async || site.subscriptions().await).await;
    site.does(&speak.0, "").await;
    let [of_olga, of_station] = &speak.1[..] else { panic!("{speak:?}") };
    for (at, seen) in [(1, of_olga), (2, of_station)] {
        let said = async || has(&site.started[at].stdout(), seen).then_some(());
        wait::until("what the README says is seen", LIMIT, said).await;
    }
    assert_eq!(stranger.len(), 4);
    for (block, seen) in stranger {
        let [seen] = &seen[..] else { panic!("{block} and {seen:?}") };
        site.does(block, seen).await;
    }
    assert_eq!(site.started[2].stdout(), format!("{of_station}\n"), "what is not allowed has come");

    // A browser, which has the states that are retained. The certificate is not that of another authority.
    let pem = fs::read_to_string(site.path("certificates/hub-ca.pem")).unwrap();
    let stream = TcpStream::connect(("127.0.0.1", site.ports[2])).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let tls = tidemill_tests::pki::trusting(&pem, None).connect(name, stream).await.unwrap();
    let connect = Connect::clean("map").login("victor", "just-looking");
    let mut map = Client::over(bytes_of(open(tls).await), &connect).await;
    map.subscribe(&[("stations/+/status", 0)]).await;
    let mut states = [map.message().await, map.message().await].map(|state| state.topic);
    states.sort();
    assert_eq!(states, ["stations/cs-041/status", "stations/cs-042/status"]);

    // Made again, while it runs.
    site.does("./make-certificates cs-041 cs-042", "").await;
    let told = async || site.started[0].stderr().contains("certificates are reloaded").then_some(());
    wait::until("the new certificates", LIMIT, told).await;
    map.nothing_comes().await;
}
