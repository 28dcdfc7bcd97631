//! Programs that stand in for those a configuration names: each notes down how it was called.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit};
use serde_json::Value;

/// What a shell line says and no stand-in stands for.
const REAL: &[&str] = &[
    "&&", "cd", "do", "done", "echo", "exec", "export", "false", "for", "if", "in", "printf",
    "sleep", "then", "fi", "true", "while", "test", "[", "||", "{", "}", "mkdir", "-p", "sh",
];

/// A configuration on its way to a start.
pub(crate) struct Stage<'p> {
    /// The test's folder: programs of `PATH` are in `programs`, paths of `/` in `root`.
    pub(crate) folder: &'p Path,
    /// Names of services whose programs end at once.
    pub(crate) ends: &'p BTreeSet<String>,
}

impl Stage<'_> {
    /// Prepares one service as `config --json` shows it: what it names is there afterwards.
    pub(crate) fn prepare(&self, service: &mut Value) {
        let own = service["working_dir"].as_str().unwrap().to_owned();
        let folder = if Path::new(&own).starts_with(self.folder) {
            PathBuf::from(&own)
        } else {
            PathBuf::from(self.rooted(&own))
        };
        fs::create_dir_all(&folder).unwrap();
        service["working_dir"] = folder.to_str().unwrap().into();
        // A stand-in serves nobody and says nothing of itself, and what takes rights that not everybody
        // who runs this has is tested elsewhere.
        let left_out = [
            "user",
            "listen",
            "secrets",
            "ready",
            "healthcheck",
            "watchdog",
            "nice",
            "oom_score_adj",
            "group_add",
            "cap_drop",
        ];
        for key in left_out {
            service.as_object_mut().unwrap().remove(key);
        }
        if let Some(Value::Object(limits)) = service.get_mut("limits") {
            limits.retain(|key, _| ["nofile", "core"].contains(&key.as_str()));
        }
        if let Some(nofile) = service["limits"]["nofile"].as_u64() {
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            service["limits"]["nofile"] = nofile.min(hard).into();
        }
        if let Some(path) = service["environment"]["PATH"].as_str() {
            let path = format!("{}/programs:{path}:/usr/bin:/bin", self.folder.display());
            service["environment"]["PATH"] = path.into();
        }
        let mut words: Vec<String> = service["command"]
            .as_array()
            .unwrap()
            .iter()
            .map(|w| w.as_str().unwrap().into())
            .collect();
        let shell = Path::new(&words[0]).file_name().unwrap().to_str().unwrap();
        if matches!(shell, "sh" | "bash") && words.get(1).is_some_and(|word| word == "-c") {
            words[2] = self.line(&words[2], &folder);
        } else {
            words[0] = self.program(&words[0], &folder);
        }
        service["command"] = words.into();
    }

    fn rooted(&self, path: &str) -> String {
        format!("{}/root{path}", self.folder.display())
    }

    /// Makes a stand-in for a program; the word that finds it.
    fn program(&self, name: &str, folder: &Path) -> String {
        let (path, word) = if name.starts_with(self.folder.to_str().unwrap()) {
            (PathBuf::from(name), name.to_owned())
        } else if name.starts_with('/') {
            (PathBuf::from(self.rooted(name)), self.rooted(name))
        } else if name.contains('/') {
            (folder.join(name), name.to_owned())
        } else {
            (self.folder.join("programs").join(name), name.to_owned())
        };
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if !path.is_dir() {
            fs::write(&path, self.script()).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        word
    }

    /// A line for a shell: stand-ins for the program of each of its commands.
    fn line(&self, line: &str, folder: &Path) -> String {
        let mut folder = folder.to_owned();
        let mut out = line.to_owned();
        let parts = line.replace("&&", "\n").replace([';', '|'], "\n");
        for part in parts.lines() {
            let mut words = part.split_whitespace().map(|word| word.trim_matches(['\'', '"']));
            let mut word = words.next();
            while word.is_some_and(|w| w != "cd" && (REAL.contains(&w) || w.contains('='))) {
                word = words.next();
            }
            match word {
                Some("cd") => {
                    let to = words.next().unwrap();
                    if to.starts_with('/') {
                        out = out.replacen(to, &self.rooted(to), 1);
                        folder = PathBuf::from(self.rooted(to));
                    } else {
                        folder = folder.join(to);
                    }
                    fs::create_dir_all(&folder).unwrap();
                }
                Some(name)
                    if name.starts_with(|c: char| c.is_ascii_alphabetic() || "./".contains(c)) =>
                {
                    let word = self.program(name, &folder);
                    if word != name && !out.contains(&word) {
                        out = out.replace(name, &word);
                    }
                }
                _ => {}
            }
        }
        out
    }

    /// A stand-in notes down how it was called. What a shell calls on its way to the program proper
    /// ends then; so does a program that is meant to end; all else goes on running.
    fn script(&self) -> String {
        let folder = self.folder.display();
        let ends: Vec<_> = self.ends.iter().map(|name| format!("{name}) exit 0;;\n")).collect();
        let ends = ends.concat();
        format!(
            "#!/bin/sh
out={folder}/out/$WHARF_SERVICE.$WHARF_REPLICA
{{
  echo \"program: $0\"
  for argument; do printf 'argument: %s\\n' \"$argument\"; done
  echo \"folder: $(pwd -P)\"
  /usr/bin/env | LC_ALL=C /usr/bin/sort | /bin/sed 's/^/variable: /'
}} >> \"$out\"
read -r parent < /proc/$PPID/comm
case $parent in sh|bash)
  case $(/usr/bin/tr '\\0' ' ' < /proc/$PPID/cmdline) in *'exec '*) exit 0;; esac;;
esac
echo done >> \"$out\"
case $WHARF_SERVICE in
{ends}esac
exec /bin/sleep 1000
"
        )
    }
}
