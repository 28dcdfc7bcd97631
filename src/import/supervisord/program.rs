//! One program of supervisord, with as many processes as it has.

use serde_json::{Value, json};

use super::keys::{is_false, is_true, take};
use super::{Common, TABLE};
use crate::import::command::{escape, reference};
use crate::import::draft::{Draft, Origin};
use crate::import::ini::{Key, Section};
use crate::import::job::Job;

/// One `[program:x]`.
pub(super) struct Program<'p> {
    /// The file it stands in.
    pub(super) file: usize,
    pub(super) section: &'p Section,
    pub(super) name: &'p str,
    /// The group it belongs to.
    pub(super) group: Option<&'p str>,
}

/// One of a program's processes.
struct Process<'p> {
    program: &'p Program<'p>,
    number: u32,
    count: u32,
}

impl Program<'_> {
    pub(super) fn services(&self, job: &mut Job<'_>, common: &Common) -> Vec<(i64, Draft)> {
        let count = self.number(job, "numprocs", 1, 1000);
        let first = self.number(job, "numprocs_start", 0, 1_000_000);
        let priority = self.number(job, "priority", 999, u32::MAX);
        let differ = count > 1 && self.differs();
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

    /// Whether its processes differ in more than their names and logs.
    fn differs(&self) -> bool {
        self.section.keys.iter().any(|key| {
            key.value.contains("%(process_num)")
                && key.from.key != "process_name"
                && !key.from.key.ends_with("logfile")
        })
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
        let own = pattern.filter(|_| self.count > 1 && self.program.differs());
        let name = match own {
            Some(pattern) => self.expand(job, &mut draft, program.file, from, &pattern, false),
            None if self.count > 1 && self.program.differs() => {
                format!("{}-{}", program.name, self.number)
            }
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
