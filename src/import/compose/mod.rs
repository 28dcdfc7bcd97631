//! docker compose: the services whose program is named, since an image cannot be run without an
//! engine.

pub(in crate::import) mod interpolate;
mod keys;
pub(in crate::import) use keys::environment;
pub(in crate::import) mod values;

use std::collections::HashMap;

use serde_json::Value;

use super::command::escape;
use super::draft::{Draft, Origin};
use super::job::{Job, key_origin, layered};
use super::table::{Row, carried, lost, noted};
use crate::spec::{Entry, Kind, Node, Rule, merge};
use interpolate::translate;

/// What becomes of compose's keys.
#[rustfmt::skip]
pub(super) const TABLE: &[Row] = &[
    carried("command", "`command`", "with `entrypoint` before it; a text is split into words"),
    carried("entrypoint", "`command`", ""),
    carried("environment", "`environment`", "a name without a value becomes `${NAME:-}`"),
    carried("env_file", "`env_file`", ""),
    carried("working_dir", "`working_dir`", "below a bind mount it becomes the path on the host; elsewhere it is lost, being a path of the image"),
    carried("volumes", "`working_dir`", "bind mounts say where paths of the container are on the host; else lost"),
    carried("user", "`user`", ""),
    carried("restart", "`restart`", "`no` where it is not written; `on-failure:5` sets `max_restarts`"),
    carried("depends_on", "`depends_on`", ""),
    carried("links", "`depends_on`", "names become no host names"),
    carried("healthcheck", "`healthcheck`", "`test` becomes `exec`"),
    carried("stop_signal", "`stop_signal`", ""),
    carried("stop_grace_period", "`stop_grace_period`", ""),
    carried("scale", "`replicas`", ""),
    carried("deploy", "`replicas`, `limits`, `restart`", "placement, updates and reservations are lost"),
    carried("ulimits", "`limits`", "the hard ones; locks, nice, rss and rttime are lost"),
    carried("mem_limit", "`limits.memory`", ""),
    carried("cpus", "`limits.cpus`", ""),
    carried("pids_limit", "`limits.pids`", ""),
    carried("oom_score_adj", "`oom_score_adj`", ""),
    carried("group_add", "`group_add`", ""),
    carried("cap_drop", "`cap_drop`", ""),
    carried("security_opt", "`no_new_privileges`", "for `no-new-privileges`; the others are lost"),
    carried("profiles", "`profiles`", "until they are supported also `replicas: 0`"),
    carried("labels", "`labels`", ""),
    carried("logging", "`logging`", "`max-size` and `max-file`; drivers are lost"),
    carried("extends", "the keys themselves", "of a service of the same file"),
    carried("secrets", "`secrets`", "with the `file` of the top level; `NAME_FILE` is its path, and not /run/secrets"),
    carried("x-*", "left out", "anchors in them are followed"),
    carried("${NAME:-x}", "`${NAME:-x}`", "`.env` becomes the default; `:?` and `:+` are decided or weakened, which is said"),
    noted("version", "services.yaml has a version of its own"),
    noted("name", "the folder tells projects apart"),
    noted("container_name", "the service's name is enough"),
    noted("image", "the program is taken from this machine, not from the image"),
    noted("build", "nothing is built; the program is taken from this machine"),
    noted("expose", "ports of a program are open without being announced"),
    noted("init", "what a program leaves behind is reaped anyway"),
    noted("pull_policy", "there is no image to pull"),
    noted("platform", "there is no image to choose"),
    noted("attach", "`wharf logs NAME` shows the output of one"),
    noted("annotations", "there is no container to annotate"),
    lost("ports", "the program listens on this machine itself, without a mapping", "give it the port it shall listen on"),
    lost("networks", "services share this machine's network", "let programs listen on 127.0.0.1 where they must not be reached"),
    lost("network_mode", "services share this machine's network", ""),
    lost("configs", "no file is put anywhere for a program", "write the file where the program looks for it"),
    lost("hostname", "services share this machine's name", ""),
    lost("domainname", "services share this machine's name", ""),
    lost("external_links", "services share this machine's network", "name hosts in `environment`"),
    lost("extra_hosts", "names are this machine's", "write them to /etc/hosts"),
    lost("dns*", "names are resolved as on this machine", ""),
    lost("tty", "programs have no terminal", ""),
    lost("stdin_open", "standard input is empty without a `port:`", "speak to the program over a `port:`"),
    lost("privileged", "nothing is granted", "run `wharf up` as the user that may"),
    lost("cap_add", "nothing is granted", "give the file the capability with setcap"),
    lost("devices", "programs see this machine's devices", ""),
    lost("tmpfs", "programs see this machine's folders", ""),
    lost("read_only", "programs see this machine's folders", "run them as a user who may not write"),
    lost("shm_size", "programs share this machine's /dev/shm", ""),
    lost("sysctls", "the kernel's settings are this machine's", "set them with sysctl"),
    lost("mem_reservation", "memory is not reserved", "`limits.memory` bounds it"),
    lost("memswap_limit", "swap is not limited apart", ""),
    lost("cpu_*", "the share of processors is not weighed", "`limits.cpus` bounds it"),
    lost("cpuset", "programs run on all processors", "start it through taskset"),
    lost("blkio_config", "input and output are not limited", ""),
    lost("ipc", "services share this machine's", ""),
    lost("pid", "services share this machine's processes", ""),
    lost("userns_mode", "users are this machine's", ""),
    lost("cgroup*", "control groups are wharf's own", ""),
    lost("runtime", "there is no container runtime", ""),
    lost("isolation", "there is no container", ""),
    lost("storage_opt", "there is no container", ""),
    lost("mac_address", "services share this machine's network", ""),
    lost("develop", "files are not watched", "`wharf restart NAME` after a change"),
    lost("post_start", "nothing is run after a start", ""),
    lost("pre_stop", "nothing is run before a stop", "`stop_signal` is sent"),
    lost("include", "other files are not included", "name them all: `wharf import a.yaml b.yaml`"),
];

/// Reads the files, a later one laid over those before it.
pub(super) fn read(job: &mut Job<'_>, files: &[usize]) {
    let Some(mut whole) = layered(job, files, "services") else { return };
    let file = files.first().copied().unwrap_or_default();
    let dotenv = dotenv(job, file);
    let services = whole.take("services");
    let declared = whole.take("secrets");
    for entry in whole.entries() {
        top_level(job, entry);
    }
    let Some(services) = services else {
        let top = Origin::new(String::new(), whole.place);
        return job.wrong(&top, "the key `services` is missing", "");
    };
    let Kind::Map(entries) = services.value.kind else {
        return job.wrong(&key_origin(&services), "expected services by name", "");
    };
    let mut stack = Stack { file, entries, dotenv, left_out: Vec::new() };
    for secret in declared.iter().flat_map(|declared| declared.value.entries()) {
        if let Some(path) = secret.value.get("file").and_then(Node::text) {
            let path = host_path(job, file, path);
            job.secret_files.insert(secret.key.clone(), path);
        }
    }
    stack.services(job);
}

/// The variables of `.env` beside the file.
fn dotenv(job: &mut Job<'_>, file: usize) -> HashMap<String, String> {
    let path = job.folder(file).join(".env");
    let Some(variables) = job.variables(&path) else { return HashMap::new() };
    job.copied(&path);
    variables.into_iter().collect()
}

fn top_level(job: &mut Job<'_>, entry: &Entry) {
    let from = key_origin(entry);
    match entry.key.as_str() {
        key if key.starts_with("x-") => {}
        "volumes" => job.note(&from, "volumes are folders of this machine, which nobody makes"),
        "networks" => job.note(&from, "services share this machine's network"),
        _ => job.lose_by(TABLE, &from),
    }
}

/// All services of a compose file.
pub(super) struct Stack {
    file: usize,
    entries: Vec<Entry>,
    dotenv: HashMap<String, String>,
    /// Names of services that cannot run here.
    left_out: Vec<String>,
}

impl Stack {
    fn services(&mut self, job: &mut Job<'_>) {
        let mut made = Vec::new();
        for at in 0..self.entries.len() {
            let entry = self.entries[at].clone();
            if entry.key.starts_with("x-") {
                continue;
            }
            let from = key_origin(&entry);
            if !matches!(entry.value.kind, Kind::Map(_)) {
                job.wrong(&from, "expected a map of keys", "");
                continue;
            }
            let mut node = entry.value.clone();
            self.extend(job, &mut node, 0);
            translated(job, &entry.key, &mut node, &self.dotenv);
            let mut service = keys::Service::new(self.file, &entry.key, node);
            match service.draft(job, &from) {
                Some(draft) => made.push((entry.key.clone(), draft)),
                None => self.left_out.push(entry.key.clone()),
            }
        }
        rename(job, made);
    }

    /// Takes over what a service extends.
    fn extend(&self, job: &mut Job<'_>, node: &mut Node, depth: usize) {
        let Some(extends) = node.take("extends") else { return };
        let from = key_origin(&extends);
        let other_file = extends.value.get("file").is_some();
        let name = extends.value.text().or_else(|| extends.value.get("service")?.text());
        let base = name.and_then(|name| self.entries.iter().find(|entry| entry.key == name));
        match base {
            Some(base) if !other_file && depth < 16 => {
                let mut base = base.value.clone();
                self.extend(job, &mut base, depth + 1);
                let own = std::mem::replace(node, base);
                merge(node, own, Rule::Deep);
            }
            _ => job.lose(
                &from,
                "a service of another file cannot be taken over",
                "write its keys here, or name both files",
            ),
        }
    }
}

/// Gives drafts their names, and dependencies those names.
fn rename(job: &mut Job<'_>, made: Vec<(String, Draft)>) {
    let mut names = HashMap::new();
    let mut drafts = Vec::new();
    for (old, mut draft) in made {
        let fresh = job.draft(&old, &Origin::new(old.as_str(), draft.place));
        draft.name.clone_from(&fresh.name);
        draft.missing.extend(fresh.missing);
        names.insert(old, fresh.name);
        job.drafts.push(draft.clone());
        drafts.push(draft);
    }
    let start = job.drafts.len() - drafts.len();
    for draft in &mut job.drafts[start..] {
        dependencies(draft, &names);
    }
}

/// Keeps dependencies that exist, by their new names.
pub(super) fn dependencies(draft: &mut Draft, names: &HashMap<String, String>) {
    let Some(Value::Object(old)) = draft.keys.get("depends_on").cloned() else { return };
    let from = draft.origins.get("depends_on").cloned();
    let mut kept = serde_json::Map::new();
    for (name, value) in old {
        match names.get(&name) {
            Some(new) => {
                kept.insert(new.clone(), value);
            }
            None => {
                if let Some(from) = &from {
                    draft.lose(
                        from,
                        format!("`{name}` is not among the services"),
                        "see to it that it runs",
                    );
                }
            }
        }
    }
    if kept.is_empty() {
        draft.keys.remove("depends_on");
    } else {
        draft.keys.insert("depends_on".to_owned(), Value::Object(kept));
    }
}

/// Translates the references in every scalar.
pub(super) fn translated(
    job: &mut Job<'_>,
    key: &str,
    node: &mut Node,
    dotenv: &HashMap<String, String>,
) {
    let origin = Origin::new(key, node.place);
    match &mut node.kind {
        Kind::Scalar { text, .. } if text.contains('$') => {
            let done = translate(text, dotenv);
            *text = done.text;
            for remark in done.remarks {
                job.lose(&origin, remark, "");
            }
        }
        Kind::List(items) => {
            for item in items {
                translated(job, key, item, dotenv);
            }
        }
        Kind::Map(entries) => {
            for entry in entries {
                let key = entry.key.clone();
                translated(job, &key, &mut entry.value, dotenv);
            }
        }
        _ => {}
    }
}

/// A translated text as a path of this machine, from the folder of the file.
fn host_path(job: &Job<'_>, file: usize, text: &str) -> std::path::PathBuf {
    let plain = interpolate::without_environment(text);
    job.folder(file).join(plain)
}

/// The text of a folder as services.yaml writes it.
fn folder_text(job: &Job<'_>, folder: &std::path::Path) -> Option<String> {
    job.working_dir(folder).map(|folder| escape(&folder))
}
