//! The codec, under the path that it has in the hub.

#[expect(dead_code, reason = "what only the rest of the hub uses")]
#[path = "../../hub/src/mqtt/codec/mod.rs"]
pub mod codec;
