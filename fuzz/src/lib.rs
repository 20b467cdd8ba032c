//! The MQTT codec without the hub around it, whose dependencies would all have to be built for fuzzing too.

pub mod mqtt;
