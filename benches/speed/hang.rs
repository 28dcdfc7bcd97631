//! Whether a service whose working directory hangs delays any other.
//!
//! The directory is a FUSE mount whose file system never answers, as a dead network mount does not.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::report::{Report, Table};
use crate::samples::Samples;
use crate::stamps::Stamps;
use crate::wait::{between, pass, until};
use crate::wharf::{ROW, Wharf, service};
use crate::workshop::Workshop;
use crate::{Options, WARM_UP};

pub(crate) fn measure(workshop: &Workshop, options: &Options, report: &mut Report) {
    let dead = match DeadMount::new(workshop) {
        Ok(dead) => dead,
        Err(error) => {
            eprintln!("not measured: a directory that hangs needs /dev/fuse and root: {error}");
            return;
        }
    };
    let stamps = Stamps::new(workshop, "hang");
    let child = workshop.child();
    let quick = service("quick", &child, stamps.text(), "");
    let inside = dead.folder.join("inside");
    let folder = format!("    working_dir: {}\n    start_timeout: 10m\n", inside.display());
    let hanging = service("hanging", &child, "nowhere", &folder);
    let mut wharf = Wharf::new(workshop, &format!("services:\n{quick}{hanging}"));
    wharf.up(&["quick"]);
    let mut pid = stamps.next().pid;

    let mut rounds = || -> Samples {
        let mut samples = Samples::default();
        for round in 0..WARM_UP + options.rounds {
            pass(ROW);
            let killed = wharf::os::clock::now();
            wharf::os::signal::send_pid(pid, wharf::exit::Signal::KILL).unwrap();
            let next = stamps.next();
            pid = next.pid;
            if round >= WARM_UP {
                samples.push(between(killed, next.at));
            }
        }
        samples
    };
    let before = rounds();
    let request = wharf.ask("POST", "/v1/services/hanging/start");
    until("the hanging start", || (wharf.count("starting") == 1).then_some(()));
    let during = rounds();
    assert_eq!(wharf.count("starting"), 1, "it still hangs");
    drop(dead);
    until("the end of the hanging start", || (wharf.count("starting") == 0).then_some(()));
    drop((request, wharf));

    let table = Table::new("Kill → successor runs, beside a service whose directory hangs", "µs")
        .row("before it was started", before)
        .row("while it hangs", during);
    report.promise(
        "a hanging directory delays others, × without",
        table.ratio("while it hangs"),
        1.3,
    );
    report.table(table);
}

/// A mount that nobody answers for.
struct DeadMount {
    folder: PathBuf,
    /// Whoever has this open is the file system.
    _answers: File,
}

impl DeadMount {
    fn new(workshop: &Workshop) -> Result<Self, String> {
        let device = File::options().read(true).write(true).open("/dev/fuse");
        let answers = device.map_err(|error| format!("/dev/fuse: {error}"))?;
        let folder = workshop.temporary.path().join("dead");
        std::fs::create_dir(&folder).unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", answers.as_raw_fd());
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("dead"), &folder, Some("fuse"), flags, Some(options.as_str()))
            .map_err(|error| format!("mount: {error}"))?;
        Ok(Self { folder, _answers: answers })
    }
}

impl Drop for DeadMount {
    fn drop(&mut self) {
        // What waits for an answer gets an error once the descriptor is closed, right after this.
        let folder: &Path = &self.folder;
        if let Err(error) = umount2(folder, MntFlags::MNT_DETACH) {
            eprintln!("cannot unmount {}: {error}", folder.display());
        }
    }
}
