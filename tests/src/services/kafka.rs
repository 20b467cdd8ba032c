//! [`Kafka`]: one Apache Kafka node in KRaft mode, broker and controller in one process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rustix::process::Signal;
use tempfile::TempDir;

use super::Shared;
use crate::ports;
use crate::process::{Process, run};

/// Downloading the server takes some seconds with a good network.
const RESOLVE_LIMIT: Duration = Duration::from_secs(600);
/// About 3 s on two idle cores.
const START_LIMIT: Duration = Duration::from_secs(90);

/// The server's class path is described here.
const POM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/services/kafka/pom.xml");
/// Its configuration, but for ports and folders.
const PROPERTIES: &str = include_str!("../../services/kafka/server.properties");

/// One running (or just stopped) Kafka node.
pub struct Kafka {
    // Before the folder, so that its log can still be printed when it is dropped.
    process: Option<Process>,
    dir: TempDir,
    libraries: PathBuf,
    port: u16,
    starts: u32,
}

static SHARED: Shared<Kafka> = Shared::new();

impl Kafka {
    /// Starts a node with no topics.
    ///
    /// # Panics
    /// When it does not start; the end of its log is printed.
    pub async fn start() -> Kafka {
        let libraries = libraries().await;
        let dir = tempfile::Builder::new().prefix("tidemill-kafka-").tempdir().expect("a temporary folder");
        let (port, controller) = (ports::free(), ports::free());
        let properties = format!(
            "{PROPERTIES}\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
             controller.quorum.bootstrap.servers=127.0.0.1:{controller}\n\
             log.dirs={data}\n",
            data = dir.path().join("data").display(),
        );
        fs::write(dir.path().join("server.properties"), properties).expect("a writable folder");
        let mut kafka = Kafka { libraries, dir, port, process: None, starts: 0 };
        kafka.format().await;
        kafka.start_again().await;
        kafka
    }

    /// The node that the tests of this binary share.
    pub async fn shared() -> std::sync::Arc<Kafka> {
        SHARED.get(Kafka::start()).await
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Kills the node (SIGKILL). Its data stays.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts the node again on the same port, with the data it had.
    ///
    /// # Panics
    /// When it does not start; the end of its log is printed.
    pub async fn start_again(&mut self) {
        self.starts += 1;
        let mut command = self.java();
        command.arg("kafka.Kafka").arg("server.properties");
        let mut process =
            Process::start(&format!("kafka-{}", self.starts), command, self.dir.path(), Signal::KILL);
        process
            .wait_for("`Kafka Server started`", START_LIMIT, |_, log| {
                log.contains("Kafka Server started").then_some(())
            })
            .await;
        self.process = Some(process);
    }

    /// Creates a topic.
    ///
    /// # Panics
    /// When Kafka refuses.
    pub async fn create_topic(&self, name: &str, partitions: i32) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().expect("a Kafka client");
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
        let results = admin.create_topics([&topic], &options).await.expect("an answer from Kafka");
        for result in results {
            result.unwrap_or_else(|(topic, error)| panic!("creating topic {topic}: {error}"));
        }
    }

    /// Settings of a client of this node.
    #[must_use]
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.brokers());
        config
    }

    /// Gives the data folder its identity, as a node's first start needs it.
    async fn format(&self) {
        let mut command = self.java();
        command.args(["kafka.tools.StorageTool", "format", "--standalone"]);
        command.args(["--cluster-id", "dGlkZW1pbGwtdGVzdHMwMA", "--config", "server.properties"]);
        let ended = run("kafka-format", command, START_LIMIT).await;
        assert!(ended.status.success(), "formatting Kafka's data folder: {}", ended.output());
    }

    fn java(&self) -> Command {
        let mut command = Command::new("java");
        command
            .current_dir(self.dir.path())
            // A node that lives for a minute starts sooner with the quick compiler only and the simplest collector.
            .args(["-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"])
            .args(["-Dorg.slf4j.simpleLogger.showDateTime=true"])
            .args(["-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS"])
            .args(["-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config.AbstractConfig=warn"])
            .arg("-cp")
            .arg(self.libraries.join("*"));
        command
    }
}

/// The folder with the server's libraries, filled by Maven when it is not there yet. It is outside of the checkout,
/// so that a clean clone does not download them again, and named by what the pom says.
async fn libraries() -> PathBuf {
    let pom = fs::read(POM).unwrap_or_else(|error| panic!("{POM}: {error}"));
    let cache = cache_folder().join("kafka");
    let libraries = cache.join(format!("{:016x}", fnv1a(&pom)));
    if libraries.is_dir() {
        return libraries;
    }
    eprintln!("downloading Apache Kafka from Maven Central to {}", libraries.display());
    fs::create_dir_all(&cache).unwrap_or_else(|error| panic!("creating {}: {error}", cache.display()));
    // Filled under another name first: what has the final name is complete.
    let partial = tempfile::Builder::new().prefix("partial-").tempdir_in(&cache).expect("a temporary folder");
    let mut command = Command::new("mvn");
    command.args(["--batch-mode", "--quiet", "--file", POM, "dependency:copy-dependencies"]);
    command.args(["-DincludeScope=runtime"]);
    command.arg(format!("-DoutputDirectory={}", partial.path().display()));
    let ended = run("mvn", command, RESOLVE_LIMIT).await;
    assert!(ended.status.success(), "mvn dependency:copy-dependencies of {POM}: {}", ended.output());
    match fs::rename(partial.path(), &libraries) {
        // Renamed away, nothing is left to be deleted.
        Ok(()) => drop(partial.keep()),
        Err(error) => assert!(libraries.is_dir(), "renaming to {}: {error}", libraries.display()),
    }
    libraries
}

/// `$XDG_CACHE_HOME/tidemill`, or `~/.cache/tidemill`.
fn cache_folder() -> PathBuf {
    let cache =
        std::env::var_os("XDG_CACHE_HOME").filter(|path| Path::new(path).is_absolute()).map(PathBuf::from);
    let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
    cache.expect("XDG_CACHE_HOME or a home folder").join("tidemill")
}

/// FNV-1a, 64 bits: the name of a cache folder needs no more.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
