//! Makes the table of the profiles that are compiled in from the folders of `ports/`, so that a
//! profile is data: adding one needs no Rust. It reads names alone and looks at nothing else.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let variable = |name: &str| {
        env::var_os(name).map(PathBuf::from).ok_or_else(|| io::Error::other(format!("no {name}")))
    };
    let ports = variable("CARGO_MANIFEST_DIR")?.join("ports");
    println!("cargo::rerun-if-changed=ports");
    fs::write(variable("OUT_DIR")?.join("profiles.rs"), table(&ports)?)
}

/// One line a folder with a `port.yaml`, in the order of their names.
fn table(ports: &Path) -> io::Result<String> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(ports)? {
        let folder = entry?.path();
        if folder.join("port.yaml").is_file() {
            folders.push(folder);
        }
    }
    folders.sort();
    let mut table = "&[\n".to_owned();
    for folder in folders {
        let text = |path: &Path| {
            let text = path.to_str().map(str::to_owned);
            text.ok_or_else(|| io::Error::other(format!("{} is not UTF-8", path.display())))
        };
        let name = text(Path::new(folder.file_name().unwrap_or_default()))?;
        let (port, readme) = (text(&folder.join("port.yaml"))?, text(&folder.join("README.md"))?);
        writeln!(
            table,
            "    BuiltIn {{ name: {name:?}, port: include_str!({port:?}), \
             readme: include_str!({readme:?}) }},"
        )
        .map_err(io::Error::other)?;
    }
    table.push_str("]\n");
    Ok(table)
}
