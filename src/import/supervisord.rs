//! supervisord.conf: programs, groups, and the files it includes.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::command::{escape, reference, words};
use super::draft::{Draft, Origin};
use super::ini::{self, Key, Section};
use super::job::{Job, tidy};
use super::table::{Row, carried, lost, noted};
use crate::exit::Signal;
use crate::time::format_size;

/// What becomes of supervisord's keys.
#[rustfmt::skip]
pub(super) const TABLE: &[Row] = &[
    carried("[program:x]", "`services.x`", ""),
    carried("command", "`command`", "split into words as supervisord does, without a shell"),
    carried("process_name", "the service's name", "where it is not the program's"),
    carried("numprocs", "`replicas`", "a service for each where `%(process_num)` makes them differ"),
    carried("numprocs_start", "the service's name", ""),
    carried("priority", "the order of the file", "services start in that order, none waits for another"),
    carried("autostart", "`replicas: 0` for `false`", "there is no service that is defined and started by hand only"),
    carried("autorestart", "`restart`", "`true` always, `false` no, `unexpected` on-failure"),
    carried("startsecs", "`restart.reset_after`", "a run of that length ends the row of failures; 0 is left out"),
    carried("startretries", "`restart.max_restarts`", "counted within 60s, whether it ever ran for `startsecs` or not"),
    carried("exitcodes", "`restart.success_exit_codes`", ""),
    carried("stopsignal", "`stop_signal`", ""),
    carried("stopwaitsecs", "`stop_grace_period`", ""),
    carried("stopasgroup", "`stop_kill`", "the stop signal reaches the process group unless `stop_kill` is process"),
    carried("killasgroup", "`stop_kill`", "`tree` reaches more than the group; `false` becomes process"),
    carried("user", "`user`", "HOME and USER are those of that user"),
    carried("redirect_stderr", "nothing to write", "both streams go to one log, each line with its stream"),
    carried("stdout_logfile_maxbytes", "`logging.max_size`", ""),
    carried("stdout_logfile_backups", "`logging.max_files`", ""),
    carried("environment", "`environment`", ""),
    carried("directory", "`working_dir`", ""),
    carried("umask", "`umask`", ""),
    carried("[group:x]", "`groups.x` and `labels.group`", ""),
    carried("programs", "`groups.x.services`", "of a group"),
    carried("[include]", "the files themselves", ""),
    carried("files", "the files themselves", "of `[include]`; wildcards in the last part of a path"),
    carried("%(ENV_X)s", "`${X:-}`", "supervisord refuses to start without it; here it is empty then"),
    carried("%(here)s", "the folder of the file", "likewise program_name, group_name, process_num, numprocs; host_node_name is `${HOSTNAME:-}`"),
    carried("minfds", "`limits.nofile`", "of `[supervisord]`; for every program"),
    lost("stdout_logfile", "output is kept in .wharf/log", "read it with `wharf logs NAME`"),
    lost("stderr_logfile", "output is kept in .wharf/log, both streams in one file", "read it with `wharf logs NAME`"),
    lost("stderr_logfile_maxbytes", "both streams share one log", "`logging.max_size` is for both"),
    lost("stderr_logfile_backups", "both streams share one log", "`logging.max_files` is for both"),
    lost("stdout_capture_maxbytes", "there is no capture mode", "speak to the program over a `port:`"),
    lost("stderr_capture_maxbytes", "there is no capture mode", "speak to the program over a `port:`"),
    lost("stdout_events_enabled", "output makes no events", "follow it with `wharf logs -f`"),
    lost("stderr_events_enabled", "output makes no events", "follow it with `wharf logs -f`"),
    lost("stdout_syslog", "output is not forwarded to syslog from here", "read it with `wharf logs`"),
    lost("stderr_syslog", "output is not forwarded to syslog from here", "read it with `wharf logs`"),
    lost("serverurl", "supervisord's XML-RPC is not spoken", "use the HTTP interface of .wharf/sock"),
    lost("[eventlistener:*", "speaks supervisord's event protocol, which is not spoken here", "follow `wharf events` or `wharf exits -f`"),
    lost("[fcgi-program:*", "needs a socket that supervisord opens for it", "have the program listen itself, or keep a web server's own FastCGI manager"),
    lost("[inet_http_server]", "nothing listens on TCP", "use `wharf ps`, or HTTP over .wharf/sock"),
    lost("[rpcinterface:*", "supervisord's XML-RPC is not spoken", "use HTTP over .wharf/sock"),
    noted("[rpcinterface:supervisor]", "wharf's own interface is HTTP over .wharf/sock"),
    noted("[unix_http_server]", "wharf's own socket is .wharf/sock, mode 0600"),
    noted("[supervisorctl]", "`wharf ps`, `wharf start`, `wharf stop` need no settings"),
    noted("[ctlplugin:*", "plugins of supervisorctl concern supervisorctl alone"),
    noted("nodaemon", "`wharf up` stays in the foreground, `wharf up -d` does not"),
    noted("logfile*", "wharf's own log is .wharf/wharf.log"),
    noted("loglevel", "WHARF_LOG sets the level of wharf's own log"),
    noted("pidfile", "wharf needs no pid file: .wharf is locked"),
    noted("childlogdir", "programs' logs are in .wharf/log"),
    noted("identifier", "the state directory tells managers apart"),
    noted("silent", "`wharf up -d` says nothing"),
    noted("nocleanup", "logs are rotated and bounded"),
    noted("strip_ansi", "bytes of output are kept as they are"),
    lost("minprocs", "the limit on processes is left alone", "set it before `wharf up`"),
];

/// Everything in all files.
#[derive(Default)]
struct Whole {
    sections: Vec<(usize, Section)>,
}

/// What `[supervisord]` says for all programs.
#[derive(Default)]
struct Common {
    keys: Vec<(usize, Key)>,
}

/// Reads the files and those they include.
pub(super) fn read(job: &mut Job<'_>, files: &[usize]) {
    let mut whole = Whole::default();
    for &file in files {
        for section in ini::read(job, file) {
            whole.sections.push((file, section));
        }
    }
    include(job, &mut whole);
    let common = common(job, &mut whole);
    let groups = groups(job, &whole);
    let mut programs = Vec::new();
    for (file, section) in &whole.sections {
        if let Some(name) = section.name.strip_prefix("program:") {
            let group = groups.iter().find(|(_, programs)| programs.iter().any(|p| p == name));
            let group = group.map(|(group, _)| group.as_str());
            let program = Program { file: *file, section, name: name.trim(), group };
            programs.extend(program.services(job, &common));
        }
    }
    programs.sort_by_key(|(priority, _)| *priority);
    for (_, draft) in programs {
        let name = draft.name.clone();
        let mut draft = draft;
        draft.name = job.draft(&name, &Origin::new(name.as_str(), draft.place)).name;
        job.drafts.push(draft);
    }
    group_services(job, &groups);
    if let Some(&file) = files.first() {
        let top = Origin::new("environment", job.top(file));
        job.note(
            &top,
            "programs do not see the environment of `wharf up`, as they do supervisord's: only PATH, \
             HOME, USER, LANG, TZ and what is written below",
        );
    }
}

fn include(job: &mut Job<'_>, whole: &mut Whole) {
    let mut more = Vec::new();
    for (file, section) in &whole.sections {
        let Some(key) = section.get("files").filter(|_| section.name == "include") else {
            continue;
        };
        for pattern in key.value.split_whitespace() {
            let folder = job.folder(*file);
            let pattern = pattern.replace("%(here)s", &folder.display().to_string());
            let path = tidy(&folder.join(&pattern));
            let found = wildcard(job, &path);
            if found.is_empty() {
                job.lose(
                    &key.from,
                    format!("nothing is found for `{pattern}`"),
                    "import where those files are",
                );
            }
            more.extend(found);
        }
    }
    for path in more {
        if let Some(file) = job.open(&path) {
            for section in ini::read(job, file) {
                whole.sections.push((file, section));
            }
        }
    }
}

/// The files that a path with wildcards in its last part names.
fn wildcard(job: &Job<'_>, path: &Path) -> Vec<PathBuf> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str()))
    else {
        return Vec::new();
    };
    let mut pattern = String::from("^");
    for c in name.chars() {
        match c {
            '*' => pattern.push_str(".*"),
            '?' => pattern.push('.'),
            '[' | ']' => pattern.push(c),
            c => pattern.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    pattern.push('$');
    let Ok(pattern) = regex::Regex::new(&pattern) else { return Vec::new() };
    let mut names = (job.world.list)(folder);
    names.retain(|name| pattern.is_match(name) && !name.starts_with('.'));
    names.sort();
    names.into_iter().map(|name| folder.join(name)).collect()
}

/// Sorts out what is no program and no group.
fn common(job: &mut Job<'_>, whole: &mut Whole) -> Common {
    let mut common = Common::default();
    for (file, section) in &mut whole.sections {
        let name = section.name.clone();
        match name.split(':').next().unwrap_or_default() {
            "program" | "group" | "include" => {}
            "supervisord" => {
                for key in section.keys.drain(..) {
                    match key.from.key.as_str() {
                        "environment" | "user" | "directory" | "umask" | "minfds" => {
                            common.keys.push((*file, key));
                        }
                        _ => job.lose_by(TABLE, &key.from),
                    }
                }
            }
            _ => job.lose_by(TABLE, &section.from),
        }
    }
    common
}

fn groups(job: &mut Job<'_>, whole: &Whole) -> Vec<(String, Vec<String>)> {
    let mut groups = Vec::new();
    for (_, section) in &whole.sections {
        let Some(name) = section.name.strip_prefix("group:") else { continue };
        let mut programs = Vec::new();
        for key in &section.keys {
            match key.from.key.as_str() {
                "programs" => {
                    let names = key.value.split(',').map(|name| name.trim().to_owned());
                    programs.extend(names.filter(|name| !name.is_empty()));
                }
                "priority" => job.note(&key.from, "services start in the order of the file"),
                _ => job.lose_by(TABLE, &key.from),
            }
        }
        for program in &programs {
            let wanted = format!("program:{program}");
            if !whole.sections.iter().any(|(_, section)| section.name == wanted) {
                job.lose(&section.from, format!("there is no program `{program}`"), "");
            }
        }
        if !job.works_at_top("groups") {
            job.lose(&section.from, "`groups` is not supported yet", "it is written as a comment");
        }
        groups.push((name.trim().to_owned(), programs));
    }
    groups
}

fn group_services(job: &mut Job<'_>, groups: &[(String, Vec<String>)]) {
    for (name, _) in groups {
        let label = json!(escape(name));
        let inside = job.drafts.iter().filter(|draft| draft.get("labels.group") == Some(&label));
        let names: Vec<_> = inside.map(|draft| draft.name.clone()).collect();
        if !names.is_empty() {
            let group = json!({ "services": names, "strategy": "one_for_one" });
            job.groups.insert(name.clone(), group);
        }
    }
}

/// One `[program:x]`.
struct Program<'p> {
    file: usize,
    section: &'p Section,
    name: &'p str,
    group: Option<&'p str>,
}

/// One of a program's processes.
struct Process<'p> {
    program: &'p Program<'p>,
    number: u32,
    count: u32,
}

impl Program<'_> {
    fn services(&self, job: &mut Job<'_>, common: &Common) -> Vec<(i64, Draft)> {
        let count = self.number(job, "numprocs", 1, 1000);
        let first = self.number(job, "numprocs_start", 0, 1_000_000);
        let priority = self.number(job, "priority", 999, u32::MAX);
        let differ = count > 1
            && self.section.keys.iter().any(|key| {
                key.value.contains("%(process_num)")
                    && key.from.key != "process_name"
                    && !key.from.key.ends_with("logfile")
            });
        let mut services = Vec::new();
        for number in first..first + if differ { count } else { 1 } {
            let process = Process { program: self, number, count };
            let mut draft = process.draft(job, common);
            if count > 1 && !differ {
                let from = self.section.get("numprocs").map_or(&self.section.from, |key| &key.from);
                if draft.get("replicas").is_none() {
                    draft.put("replicas", count, from);
                }
            }
            services.push((priority.into(), draft));
        }
        services
    }

    fn number(&self, job: &mut Job<'_>, key: &str, usual: u32, most: u32) -> u32 {
        let Some(key) = self.section.get(key) else { return usual };
        match key.value.parse() {
            Ok(number) if number <= most => number,
            _ => {
                let message = format!("`{}` is no number from 0 to {most}", key.value);
                job.wrong(&key.from, message, "");
                usual
            }
        }
    }
}

impl Process<'_> {
    fn draft(&self, job: &mut Job<'_>, common: &Common) -> Draft {
        let program = self.program;
        let from = &program.section.from;
        let mut draft = Draft::new(String::new(), from.place);
        let pattern = program.section.get("process_name").map(|key| key.value.clone());
        let own = pattern.filter(|_| self.count > 1 && self.differs());
        let name = match own {
            Some(pattern) => self.expand(job, &mut draft, program.file, from, &pattern, false),
            None if self.count > 1 && self.differs() => format!("{}-{}", program.name, self.number),
            None => program.name.to_owned(),
        };
        draft.name = name;
        for (file, key) in &common.keys {
            self.key(job, &mut draft, *file, key);
        }
        for key in &program.section.keys {
            self.key(job, &mut draft, program.file, key);
        }
        if draft.get("command").is_none() {
            job.wrong(from, "the key `command` is missing", "");
        }
        self.restart(job, &mut draft);
        if let Some(group) = program.group {
            draft.put("labels.group", escape(group), from);
        }
        draft
    }

    fn differs(&self) -> bool {
        self.program.section.keys.iter().any(|key| {
            key.value.contains("%(process_num)")
                && key.from.key != "process_name"
                && !key.from.key.ends_with("logfile")
        })
    }

    fn key(&self, job: &mut Job<'_>, draft: &mut Draft, file: usize, key: &Key) {
        let from = &key.from;
        let value = self.expand(job, draft, file, from, &key.value, true);
        if !take(job, draft, from, &value, &key.value, file) {
            draft.lose_by(TABLE, from);
        }
    }

    /// `restart:` from the keys that make it together.
    fn restart(&self, job: &mut Job<'_>, draft: &mut Draft) {
        let section = self.program.section;
        let word = section.get("autorestart").map_or("unexpected", |key| key.value.as_str());
        let from = section.get("autorestart").map_or(&section.from, |key| &key.from);
        let policy = match word.to_ascii_lowercase().as_str() {
            "unexpected" => "on-failure",
            word if is_true(word) => "always",
            word if is_false(word) => "no",
            _ => {
                let message = format!("`{word}` is none of true, false and unexpected");
                return job.wrong(from, message, "");
            }
        };
        draft.put("restart.policy", policy, from);
        let mut alone = true;
        if policy == "no" {
            return draft.put("restart", policy, from);
        }
        if let Some(key) = section.get("exitcodes") {
            let codes: Result<Vec<u8>, _> =
                key.value.split(',').map(|code| code.trim().parse()).collect();
            match codes {
                Ok(codes) if policy == "on-failure" && codes != [0] => {
                    draft.put("restart.success_exit_codes", json!(codes), &key.from);
                    alone = false;
                }
                Ok(_) => {}
                Err(_) => job.wrong(&key.from, "this is no list of exit codes", "write 0,2"),
            }
        }
        if let Some(key) = section.get("startretries") {
            let retries = self.program.number(job, "startretries", 3, 1_000_000);
            draft.put("restart.max_restarts", retries, &key.from);
            alone = false;
        }
        if let Some(key) = section.get("startsecs") {
            let length = self.program.number(job, "startsecs", 1, 1_000_000);
            if length > 0 {
                draft.put("restart.reset_after", format!("{length}s"), &key.from);
                alone = false;
            }
        }
        if alone {
            draft.keys.insert("restart".to_owned(), Value::String(policy.to_owned()));
        }
    }

    /// A value with its `%(…)s` in place, escaped for services.yaml where `whole`.
    fn expand(
        &self,
        job: &mut Job<'_>,
        draft: &mut Draft,
        file: usize,
        from: &Origin,
        text: &str,
        whole: bool,
    ) -> String {
        let keep = |text: &str| if whole { escape(text) } else { text.to_owned() };
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            out.push_str(&keep(&rest[..at]));
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                out.push('%');
                rest = after;
                continue;
            }
            let inside = rest.strip_prefix('(').and_then(|inside| inside.split_once(')'));
            let Some((name, after)) = inside else {
                job.wrong(from, "a % stands alone", "write %% for one %");
                return String::new();
            };
            let end = after.find(['s', 'd']).map_or(0, |end| end + 1);
            let form = &after[..end];
            rest = &after[end..];
            match self.value(job, file, name, form) {
                Some(value) => out.push_str(&keep(&value)),
                None if whole && name.starts_with("ENV_") => {
                    let name = &name[4..];
                    out.push_str(&reference(name, "").unwrap_or_default());
                    draft.note(
                        from,
                        format!("${name} is taken from the environment of `wharf up`, or is empty"),
                    );
                }
                None if whole && name == "host_node_name" => {
                    out.push_str("${HOSTNAME:-localhost}");
                    draft.lose(
                        from,
                        "the name of the host is $HOSTNAME, or localhost",
                        "export it",
                    );
                }
                None => job.wrong(from, format!("`%({name})` has no value"), ""),
            }
        }
        out.push_str(&keep(rest));
        out
    }

    fn value(&self, job: &Job<'_>, file: usize, name: &str, form: &str) -> Option<String> {
        let number = |number: u32| {
            let width = form.trim_end_matches(['d', 's']);
            let digits = width.trim_start_matches('0').parse().unwrap_or(0_usize);
            if width.starts_with('0') {
                format!("{number:0digits$}")
            } else {
                format!("{number:digits$}")
            }
        };
        Some(match name {
            "program_name" => self.program.name.to_owned(),
            "group_name" => self.program.group.unwrap_or(self.program.name).to_owned(),
            "here" => job.folder(file).display().to_string(),
            "process_num" => number(self.number),
            "numprocs" => number(self.count),
            _ => return None,
        })
    }
}

/// Takes one key over; `false` where it has no equal.
fn take(
    job: &mut Job<'_>,
    draft: &mut Draft,
    from: &Origin,
    value: &str,
    raw: &str,
    file: usize,
) -> bool {
    match from.key.as_str() {
        "command" => command(job, draft, from, value),
        "process_name" | "numprocs" | "numprocs_start" | "priority" | "autorestart"
        | "startsecs" | "startretries" | "exitcodes" | "redirect_stderr" => {}
        "autostart" if is_false(raw) => draft.hold(from, "it is not to be started by itself"),
        "autostart" | "stopasgroup" => {}
        "killasgroup" if is_false(raw) => draft.put("stop_kill", "process", from),
        "killasgroup" => {}
        "stopsignal" => signal(job, draft, from, raw),
        "stopwaitsecs" => match raw.parse::<u32>() {
            Ok(length) => draft.put("stop_grace_period", format!("{length}s"), from),
            Err(_) => job.wrong(from, format!("`{raw}` is no number of seconds"), ""),
        },
        "user" => draft.put("user", value, from),
        "stdout_logfile_maxbytes" => log_size(job, draft, from, raw),
        "stdout_logfile_backups" => match raw.parse::<u32>() {
            Ok(files) if files <= 1000 => draft.put("logging.max_files", files, from),
            _ => job.wrong(from, format!("`{raw}` is no number of files"), ""),
        },
        "stdout_logfile" | "stderr_logfile" if stays(raw) => {}
        "stderr_logfile_maxbytes" if raw == "0" => log_size(job, draft, from, raw),
        "environment" => environment(job, draft, from, value),
        "directory" => {
            let folder = job.folder(file).join(value);
            if let Some(folder) = job.working_dir(&folder) {
                draft.put("working_dir", folder, from);
            }
        }
        "umask" => draft.put("umask", value, from),
        "minfds" => match raw.parse::<u64>() {
            Ok(number) => draft.put("limits.nofile", number.max(8), from),
            Err(_) => job.wrong(from, format!("`{raw}` is no number"), ""),
        },
        _ => return false,
    }
    true
}

fn command(job: &mut Job<'_>, draft: &mut Draft, from: &Origin, value: &str) {
    match shell_words::split(value) {
        Ok(split) if !split.is_empty() => draft.put("command", words(&split), from),
        Ok(_) => job.wrong(from, "the command is empty", ""),
        Err(_) => job.wrong(from, "a quote is opened and not closed", ""),
    }
}

fn signal(job: &mut Job<'_>, draft: &mut Draft, from: &Origin, raw: &str) {
    match raw.parse::<Signal>() {
        Ok(signal) => draft.put("stop_signal", signal.to_string(), from),
        Err(error) => job.wrong(from, error.to_string(), ""),
    }
}

/// Whether output already goes where wharf shows it.
fn stays(raw: &str) -> bool {
    let raw = raw.to_ascii_lowercase();
    matches!(raw.as_str(), "auto" | "/dev/stdout" | "/dev/stderr" | "/dev/fd/1" | "/dev/fd/2")
}

fn log_size(job: &mut Job<'_>, draft: &mut Draft, from: &Origin, raw: &str) {
    let (number, shift) = match raw.to_ascii_uppercase() {
        text if text.ends_with("KB") => (text.trim_end_matches("KB").to_owned(), 10),
        text if text.ends_with("MB") => (text.trim_end_matches("MB").to_owned(), 20),
        text if text.ends_with("GB") => (text.trim_end_matches("GB").to_owned(), 30),
        text => (text, 0),
    };
    match number.trim().parse::<u64>() {
        Ok(0) => draft.note(from, "0 means no limit, and every log has one: see `logging`"),
        Ok(size) => {
            draft.put("logging.max_size", format_size((size << shift).max(1024)), from);
        }
        Err(_) => job.wrong(from, format!("`{raw}` is no size"), "write 10MB"),
    }
}

/// `A="b",C=d` as variables.
fn environment(job: &mut Job<'_>, draft: &mut Draft, from: &Origin, value: &str) {
    let mut rest = value.trim_matches([',', ' ', '\n']);
    while !rest.is_empty() {
        let Some((name, after)) = rest.split_once('=') else {
            let help = "write KEY=\"value\",KEY2=\"value\"";
            return job.wrong(from, format!("`{rest}` is not KEY=value"), help);
        };
        let after = after.trim_start();
        let (text, left) = match after.chars().next() {
            Some(quote @ ('"' | '\'')) => match after[1..].split_once(quote) {
                Some((text, left)) => (text.to_owned(), left),
                None => return job.wrong(from, "a quote is opened and not closed", ""),
            },
            _ => {
                let end = after.find([',', '\n']).unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
        };
        draft.variable(name.trim(), text);
        rest = left.trim_start_matches([',', ' ', '\n', '\t']);
    }
}

fn is_true(word: &str) -> bool {
    matches!(word.to_ascii_lowercase().as_str(), "true" | "yes" | "on" | "1")
}

fn is_false(word: &str) -> bool {
    matches!(word.to_ascii_lowercase().as_str(), "false" | "no" | "off" | "0")
}
