//! Compiles the interface definitions with protox, so that no `protoc` is needed: the CRI to Rust, the Kubernetes objects
//! to descriptors that are interpreted at run time (Rust types for them exist already, and take long to compile).

use std::error::Error;
use std::path::Path;
use std::{env, fs};

const CRI: &str = "cri/api.proto";
const KUBERNETES: &str = "k8s";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={CRI}");
    let cri = protox::compile([CRI], ["."])?;
    tonic_prost_build::configure().build_server(true).compile_fds(cri)?;

    println!("cargo:rerun-if-changed={KUBERNETES}");
    let mut files = Vec::new();
    for entry in fs::read_dir(KUBERNETES)? {
        files.push(entry?.path());
    }
    files.sort();
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(false).open_files(files)?;
    // Encoded by the compiler: `prost-types` would lose the options of `facts.proto`.
    let descriptors = compiler.encode_file_descriptor_set();
    fs::write(Path::new(&env::var("OUT_DIR")?).join("k8s.bin"), descriptors)?;
    Ok(())
}
