//! supervisord.conf: programs, groups, and the files it includes.

mod keys;
mod program;

use std::path::{Path, PathBuf};

use serde_json::json;

use super::command::escape;
use super::draft::Origin;
use super::ini::{self, Key, Section};
use super::job::{Job, tidy};
use super::table::{Row, carried, lost, noted};
use program::Program;

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
        let top = Origin::new("environment", Job::top(file));
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
