//! `wharf import`: another tool's configuration as services.yaml.
//!
//! It reads files and writes one; what becomes of what is decided in `import`.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::context::Context;
use super::failure::{FAILED, Failure, OK};
use super::out;
use crate::import::{Format, Imported, Order, Weight, World, import};
use crate::spec;

/// The mode of a file that may hold secrets.
const PRIVATE: u32 = 0o600;
/// The largest file that is read, in bytes.
const LARGEST: u64 = 16 << 20;

/// Make services.yaml of a Procfile, supervisord.conf, compose file, process-compose file, systemd
/// unit or pm2's JSON; what cannot be carried over is said
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf import Procfile -o services.yaml
  wharf import --from systemd /etc/systemd/system/web.service /etc/systemd/system/worker@1.service
  wharf import compose.yaml compose.override.yaml --strict > services.yaml
  wharf import Procfile --formation web=2,all=1 --port 3000")]
pub(super) struct Import {
    /// The files; their formats are told by name and text unless --from says it
    #[arg(required = true, value_name = "FILE")]
    what: Vec<PathBuf>,
    /// The format: procfile, supervisord, compose, process-compose, systemd or pm2
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    from: Option<Format>,
    /// Where to write; - is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Write over a file that is there
    #[arg(long)]
    force: bool,
    /// Fail when anything is lost
    #[arg(long)]
    strict: bool,
    /// How many of each process of a Procfile run, such as web=2,all=1
    #[arg(long, value_name = "NAME=COUNT")]
    formation: Option<String>,
    /// The port of a Procfile's first process [default: 5000]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// An environment file of a Procfile in place of .env
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// As JSON: the text, and what is lost
    #[arg(long)]
    json: bool,
}

fn format(word: &str) -> Result<Format, String> {
    Format::named(word).ok_or_else(|| format!("it is none of {}", Format::words()))
}

impl Import {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let here = std::env::current_dir()
            .map_err(|source| Failure::Io { doing: "find the current folder", source })?;
        let to_file = self.output.as_os_str() != "-";
        let output = here.join(&self.output);
        if to_file && !self.force && output.exists() {
            return Err(Failure::Exists(self.output.display().to_string()));
        }
        let folder = if to_file { output.parent().unwrap_or(&here) } else { &here };
        let order = Order {
            files: self.what.iter().map(|f| (f.display().to_string(), here.join(f))).collect(),
            here: here.clone(),
            folder: folder.to_owned(),
            format: self.from,
            formation: self.formation.clone(),
            port: self.port,
            env_files: self.env_file.iter().map(|file| here.join(file)).collect(),
        };
        let world = World { read: &read, list: &list };
        let imported = import(&order, world, &spec::schema())?;
        if to_file {
            let mode = if imported.secrets { PRIVATE } else { 0o644 };
            write(&output, &imported.yaml, mode, self.force)?;
        }
        if self.json {
            out::print_document(&json!({
                "format": imported.format.to_string(),
                "services": imported.services,
                "losses": imported.losses,
                "yaml": imported.yaml,
            }))?;
        } else if !to_file {
            out::print(&imported.yaml)?;
        }
        Ok(self.told(context, &imported, to_file))
    }

    /// Says what is lost; the exit code.
    fn told(&self, context: &Context, imported: &Imported, to_file: bool) -> u8 {
        for loss in &imported.losses {
            context.say(&loss.to_string());
        }
        let count = |weight| imported.losses.iter().filter(|loss| loss.weight == weight).count();
        let (lost, noted) = (count(Weight::Loss), count(Weight::Note));
        let output = if to_file { self.output.display().to_string() } else { "output".to_owned() };
        let services = if imported.services == 1 { "service" } else { "services" };
        context.say(&format!(
            "{output}: {} {services} from {}; {lost} lost, {noted} noted",
            imported.services, imported.format
        ));
        if self.strict && lost > 0 { FAILED } else { OK }
    }
}

/// The text of a file.
fn read(path: &Path) -> Option<Result<String, String>> {
    let mut bytes = Vec::new();
    let opened = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        opened => opened,
    };
    let done = opened.and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
    Some(match done {
        Err(error) => Err(error.to_string()),
        Ok(_) if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > LARGEST => {
            Err(format!("it is larger than {}", crate::time::format_size(LARGEST)))
        }
        Ok(_) => String::from_utf8(bytes).map_err(|error| {
            format!("it is not UTF-8 at byte {}", error.utf8_error().valid_up_to())
        }),
    })
}

/// The names of the files in a folder.
fn list(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Writes a file; one that is there only with `force`.
pub(super) fn write(path: &Path, text: &str, mode: u32, force: bool) -> Result<(), Failure> {
    let mut options = OpenOptions::new();
    options.write(true).mode(mode);
    if force {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    let written = options.open(path).and_then(|mut file| {
        if mode == PRIVATE {
            // The mode above is for a new file; one that is there may be open to all.
            file.set_permissions(fs::Permissions::from_mode(mode))?;
        }
        file.write_all(text.as_bytes())
    });
    written.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => Failure::Exists(path.display().to_string()),
        _ => Failure::Write { path: path.display().to_string(), source },
    })
}
