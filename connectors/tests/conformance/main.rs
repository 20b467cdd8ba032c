//! The same checks over every kind of connector: what `SPECIFICATION.md` says each MUST do.
//!
//! HTTP runs against a server in this process, Kafka against librdkafka's mock cluster, files in a temporary folder.
//! Servers of their own are used where these name them: `TIDEMILL_TEST_KAFKA=host:port`,
//! `TIDEMILL_TEST_AMQP=amqp://user:password@host:port/vhost`. AMQP has no server to run in a process, so without one
//! its checks say that they were skipped.
//!
//! # Layout
//! - `bench`   rules and messages to events, as the hub does it
//! - `subject` what a destination under test has to offer
//! - `checks`  the checks
//! - `proxy`   a way to a server that can be cut
//! - `amqp`, `file`, `http`, `kafka`: the destinations, and checks that only they need

mod amqp;
mod bench;
mod checks;
mod file;
mod http;
mod kafka;
mod proxy;
mod subject;
