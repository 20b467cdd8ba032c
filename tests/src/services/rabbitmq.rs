//! [`RabbitMq`]: one RabbitMQ node with a name, ports and folders of its own, and no plugins.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use lapin::{Connection, ConnectionProperties};
use rustix::process::Signal;
use tempfile::TempDir;

use super::Shared;
use crate::ports;
use crate::process::Process;

/// About 5 s on two idle cores.
const START_LIMIT: Duration = Duration::from_secs(90);
/// A clean stop takes about 1 s.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// Debian's own wrapper in `/usr/sbin` changes to the user `rabbitmq`, who may not use our folders; this is the server's.
const PROGRAM: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

/// One running (or just stopped) RabbitMQ node.
pub struct RabbitMq {
    // Dropped in this order: the node asks epmd to forget it, and logs are printed before their folder goes.
    node: Option<Process>,
    _epmd: Process,
    dir: TempDir,
    port: u16,
    distribution_port: u16,
    epmd_port: u16,
    starts: u32,
}

static SHARED: Shared<RabbitMq> = Shared::new();

impl RabbitMq {
    /// Starts a node with only the default exchanges.
    ///
    /// # Panics
    /// When it does not start; the end of its log is printed.
    pub async fn start() -> RabbitMq {
        let dir =
            tempfile::Builder::new().prefix("tidemill-rabbitmq-").tempdir().expect("a temporary folder");
        let (port, distribution_port, epmd_port) = (ports::free(), ports::free(), ports::free());
        for folder in ["home", "mnesia", "log"] {
            fs::create_dir(dir.path().join(folder)).expect("a writable folder");
        }
        fs::write(dir.path().join("plugins"), "[].\n").expect("a writable folder");
        fs::write(dir.path().join("rabbitmq.conf"), "log.console.level = info\n").expect("a writable folder");
        fs::write(dir.path().join("rabbitmq-env.conf"), "").expect("a writable folder");
        // Erlang would start its name server as a daemon that nobody stops; so it gets one of ours.
        let mut epmd = Command::new("epmd");
        epmd.args(["-port", &epmd_port.to_string(), "-address", "127.0.0.1"]);
        let epmd = Process::start("epmd", epmd, dir.path(), Signal::KILL);
        let mut rabbitmq =
            RabbitMq { dir, port, distribution_port, epmd_port, node: None, _epmd: epmd, starts: 0 };
        rabbitmq.start_again().await;
        rabbitmq
    }

    /// The node that the tests of this binary share.
    pub async fn shared() -> Arc<RabbitMq> {
        SHARED.get(RabbitMq::start()).await
    }

    /// `amqp://guest:guest@127.0.0.1:PORT/%2f`.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connects a client.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn connect(&self) -> Connection {
        Connection::connect(&self.uri(), ConnectionProperties::default())
            .await
            .expect("a connection to RabbitMQ")
    }

    /// Stops the node as its service would (SIGTERM). Durable queues stay.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn stop(&mut self) {
        if let Some(mut node) = self.node.take() {
            node.signal(Signal::TERM);
            node.wait(STOP_LIMIT).await;
        }
    }

    /// Starts the node again on the same port, with the data it had.
    ///
    /// # Panics
    /// When it does not start; the end of its log is printed.
    pub async fn start_again(&mut self) {
        self.starts += 1;
        // Orphaned, the shell script that watches over the node stops it when it is asked to terminate.
        let mut node = Process::start(
            &format!("rabbitmq-{}", self.starts),
            self.command(),
            self.dir.path(),
            Signal::TERM,
        );
        node.wait_for("`Server startup complete`", START_LIMIT, |log, _| {
            log.contains("Server startup complete").then_some(())
        })
        .await;
        self.node = Some(node);
    }

    fn command(&self) -> Command {
        let path = |name: &str| self.dir.path().join(name);
        let program = if Path::new(PROGRAM).exists() { PROGRAM } else { "rabbitmq-server" };
        let mut command = Command::new(program);
        command
            .current_dir(self.dir.path())
            // Holds Erlang's cookie.
            .env("HOME", path("home"))
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("RABBITMQ_NODENAME", format!("tidemill{}@localhost", self.port))
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", self.port.to_string())
            .env("RABBITMQ_DIST_PORT", self.distribution_port.to_string())
            .env("RABBITMQ_MNESIA_BASE", path("mnesia"))
            .env("RABBITMQ_LOG_BASE", path("log"))
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", path("plugins"))
            .env("RABBITMQ_CONFIG_FILE", path("rabbitmq"))
            .env("RABBITMQ_CONF_ENV_FILE", path("rabbitmq-env.conf"))
            .env("RABBITMQ_PID_FILE", path("pid"))
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                // The distribution listens on loopback only, and no daemon is started.
                "+S 1:1 -start_epmd false -kernel inet_dist_use_interface {127,0,0,1}",
            );
        command
    }
}
