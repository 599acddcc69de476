//! Compiles the `.proto` files, without protoc.

const FILES: [&str; 6] = [
    "kuafu/v1/state.proto",
    "kuafu/v1/enrolment.proto",
    "kuafu/v1/query.proto",
    "kuafu/v1/agents.proto",
    "kuafu/v1/path.proto",
    "kuafu/v1/api.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    tonic_prost_build::configure()
        .type_attribute(".", "#[derive(serde::Serialize, serde::Deserialize)]")
        .message_attribute(".", "#[serde(default, deny_unknown_fields)]")
        .enum_attribute(".", "#[serde(rename_all = \"snake_case\")]")
        .field_attribute("kuafu.v1.LegKey.key", "#[serde(with = \"crate::hex\")]")
        .field_attribute("kuafu.v1.Drop.first_bytes", "#[serde(with = \"crate::hex\")]")
        .field_attribute("kuafu.v1.Explanation.frame", "#[serde(with = \"crate::hex\")]")
        .field_attribute("kuafu.v1.ExplainQuery.frame", "#[serde(with = \"crate::hex\")]")
        // LegKey's own Debug hides the key.
        .skip_debug(["kuafu.v1.LegKey"])
        .compile_fds(descriptors)?;
    Ok(())
}
