//! Compiles the interface definitions to Rust with protox, so that no `protoc` is needed.

use std::error::Error;

const FILES: [&str; 1] = ["cri/api.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    tonic_prost_build::configure().build_server(true).compile_fds(descriptors)?;
    Ok(())
}
