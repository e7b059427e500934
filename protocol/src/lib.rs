//! The wire contract: generated code and checked conversions; the only crate that names wire types.

/// The generated types of `proto/guestkit/v1`.
#[allow(missing_docs, missing_debug_implementations, unreachable_pub, clippy::all, clippy::pedantic, rustdoc::all)]
pub mod v1 {
    tonic::include_proto!("guestkit.v1");
}

/// The encoded `FileDescriptorSet` of `proto/guestkit/v1` and its imports, with comments: for reflection and for the schema.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/documented.bin"));

/// The same without comments: for converting.
const BARE_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Those of the payloads alone.
const PAYLOAD_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/payloads.bin"));

pub mod client;
pub mod convert;
pub mod document;
pub mod status;
