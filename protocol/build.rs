//! Generates the wire types from `proto/` without a system `protoc`.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message;

const FILES: [&str; 6] = [
    "guestkit/v1/fleet.proto",
    "guestkit/v1/job.proto",
    "guestkit/v1/jobs.proto",
    "guestkit/v1/payload.proto",
    "guestkit/v1/report.proto",
    "guestkit/v1/workers.proto",
];

/// What operations are asked.
const PAYLOADS: &str = "guestkit/v1/payload.proto";
/// What they answer.
const REPORTS: &str = "guestkit/v1/report.proto";

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo:rerun-if-changed={}", root.display());

    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    let descriptors = compiler.file_descriptor_set();
    fs::write(out.join("documented.bin"), descriptors.encode_to_vec())?;
    // Comments are for people: whoever only converts should not pay for reading them at each start.
    let mut bare = descriptors.clone();
    bare.file.iter_mut().for_each(|file| file.source_code_info = None);
    fs::write(out.join("descriptors.bin"), bare.encode_to_vec())?;
    // An attempt's process reads its payload and nothing else: it starts in a third of the time with these alone.
    bare.file.retain(|file| file.name() == PAYLOADS);
    fs::write(out.join("payloads.bin"), bare.encode_to_vec())?;

    // Full names tie each generated type to its descriptor.
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    // Reports are made as JSON, by this project: read strictly, and without descriptors.
    for message in descriptors.file.iter().filter(|file| file.name() == REPORTS).flat_map(|file| &file.message_type) {
        let path = format!(".guestkit.v1.{}", message.name());
        config.type_attribute(&path, "#[derive(serde::Deserialize)] #[serde(default, deny_unknown_fields)]");
        for field in &message.field {
            let with = match field.type_name() {
                ".google.protobuf.Struct" => "struct_from_json",
                ".google.protobuf.Value" => "value_from_json",
                _ => continue,
            };
            let attribute = format!("#[serde(deserialize_with = \"crate::convert::{with}\")]");
            config.field_attribute(format!("{path}.{}", field.name()), attribute);
        }
    }
    tonic_prost_build::configure().compile_fds_with_config(descriptors, config)?;
    Ok(())
}
