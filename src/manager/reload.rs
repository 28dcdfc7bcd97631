//! A configuration takes effect: what the loop itself takes over of it, and what programs are told.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::event::{Configure, Event, Reread};
use crate::name::{Incarnation, ReplicaId, Requester};
use crate::spec::{Effect, Spec, contents_number, effect};

use super::control::Control;
use super::published::What;
use super::request::Request;

impl Control {
    /// Makes a configuration that is written down the one in effect.
    pub(super) fn configure(&mut self, spec: Arc<Spec>, by: Requester) {
        tracing::info!(
            services = spec.services.len(),
            by = by.who,
            "a new configuration takes effect"
        );
        if self.spec.cgroups != spec.cgroups {
            self.cgroups = super::open_cgroups(&spec, self.realm);
            self.controllers = super::survey(&spec, self.realm);
        }
        self.spec = Arc::clone(&spec);
        self.measured_anew();
        self.schedule();
        self.rested = false;
        self.publish(What::Reload { by: by.clone(), services: spec.services.len() });
        let mut stopped = self.stopped.clone();
        // Those that are known already are what operators made of them.
        let idle = spec.services.values().filter(|service| !service.is_chosen(&self.profiles));
        stopped.extend(idle.map(|service| service.name.clone()));
        let configure = Configure { spec, by, past: Vec::new(), stopped, down: None };
        self.feed(Event::Configure(Box::new(configure)));
        self.sockets.stale = true;
        self.take_over_settings();
    }

    /// What a run takes over without a restart, the loop takes over too.
    fn take_over_settings(&mut self) {
        for run in self.runs.values_mut() {
            let Some(service) = self.spec.services.get(&run.replica.service) else { continue };
            let effect = effect(&run.service, service);
            if effect == Some(Effect::Restart) {
                continue;
            }
            run.service = Arc::clone(service);
            let has_news = match effect {
                // Who is to be told has the news once it was told; what does not run yet finds it.
                Some(Effect::Signal) => run.landing.is_none(),
                Some(Effect::Live) => true,
                Some(Effect::Restart) | None => false,
            };
            if run.is_kept() && has_news {
                let number = contents_number(service);
                self.table.slot(run.slot).kept().set_contents(number);
            }
        }
    }

    /// Sends a program the signal at which it reads its files again.
    pub(super) fn reread(&mut self, incarnation: Incarnation, replica: &ReplicaId, reread: Reread) {
        let Reread { signal, by, files } = reread;
        self.send_signal(incarnation, signal, false);
        tracing::info!(%replica, %signal, by = by.who, ?files, "told to read its files again");
        let (by, files) = (Box::new(by), files.into_iter().map(String::into_boxed_str).collect());
        let told = What::Reread { replica: replica.clone(), incarnation, signal, by, files };
        self.publish_of(replica, told);
        let newest = self.spec.services.get(&replica.service);
        if let Some(run) = self.runs.get(&incarnation).filter(|run| run.is_kept()) {
            let number = contents_number(newest.unwrap_or(&run.service));
            self.table.slot(run.slot).kept().set_contents(number);
        }
    }

    /// Reads the configuration again on a thread of its own and applies it, if it has no mistake.
    pub(super) fn reload_asked(&mut self, by: Requester) {
        let handle = self.handle.clone();
        let files = self.spec.files.clone();
        let reloading = handle.reloading();
        let load = move || {
            let environment = |name: &str| std::env::var(name).ok();
            match crate::spec::load(&files, &environment) {
                Ok(loaded) => {
                    let (reply, answer) = oneshot::channel();
                    let spec = Box::new(loaded.spec);
                    let asked = handle.ask(Request::Apply { spec, by, reply });
                    // A loop that ends meanwhile answers nobody.
                    let applied = asked.and_then(|()| answer.blocking_recv().unwrap_or(Ok(())));
                    if let Err(refusal) = applied {
                        tracing::error!(error = %refusal, "not reloaded");
                    }
                }
                Err(mistakes) => {
                    tracing::error!(
                        "not reloaded, the old configuration stays in effect:\n{mistakes}"
                    );
                    let _ = handle.ask(Request::ReloadRefused);
                }
            }
            drop(reloading);
        };
        if let Err(error) = std::thread::Builder::new().name("reload".into()).spawn(load) {
            tracing::error!(%error, "not reloaded");
        }
    }
}
