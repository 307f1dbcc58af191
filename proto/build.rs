//! Compiles the interface definitions with protox, so that no `protoc` is needed: the CRI and our watch service to Rust,
//! the Kubernetes objects and OpenAPI documents to descriptors that are interpreted at run time (Rust types for objects
//! exist already, and take long to compile; a document is written by walking its JSON and its descriptor side by side).

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

const CRI: &str = "cri/api.proto";
const WATCH: &str = "watch/v1/watch.proto";
const KUBERNETES: &str = "k8s";
const OPENAPI: &str = "openapi";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={CRI}");
    let cri = protox::compile([CRI], ["."])?;
    tonic_prost_build::configure().build_server(true).compile_fds(cri)?;

    println!("cargo:rerun-if-changed={WATCH}");
    let mut compiler = protox::Compiler::new(["."])?;
    // With the comments: server reflection shows them.
    compiler.include_source_info(true).open_file(WATCH)?;
    fs::write(out_dir()?.join("watch.bin"), compiler.encode_file_descriptor_set())?;
    // Objects are handed on as they came, so they must not be copied out of the message.
    let watch = tonic_prost_build::configure().build_server(true).build_transport(false).bytes(".");
    watch.compile_fds(compiler.file_descriptor_set())?;

    describe(KUBERNETES)?;
    describe(OPENAPI)
}

/// Compiles the files of a directory to one set of descriptors, named after it.
fn describe(directory: &str) -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={directory}");
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        files.push(entry?.path());
    }
    files.sort();
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(false).open_files(files)?;
    // Encoded by the compiler: `prost-types` would lose the options of `facts.proto`.
    fs::write(out_dir()?.join(format!("{directory}.bin")), compiler.encode_file_descriptor_set())?;
    Ok(())
}

fn out_dir() -> Result<PathBuf, env::VarError> {
    env::var("OUT_DIR").map(PathBuf::from)
}
