//! A small MQTT client (3.1.1 and 5.0) that hides nothing: it sends the packets it is told to and gives the packets it
//! receives. It never acknowledges, resends or reconnects by itself, so a test decides all of that.
//!
//! # Layout
//! - [`packet`] the packets received, and their decoding
//! - [`encode`] the packets sent
//! - [`client`] [`Client`]: a connection

pub mod client;
pub mod encode;
pub mod packet;

pub use client::{Client, Reader, Writer};
pub use encode::{Connect, Publish};
pub use packet::{Packet, Properties, Property};

/// Protocol level in CONNECT: 4 is MQTT 3.1.1, 5 is MQTT 5.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Level {
    /// MQTT 3.1.1.
    V311 = 4,
    /// MQTT 5.0.
    V5 = 5,
}
