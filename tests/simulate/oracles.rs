//! The names of the oracles, and how often each was asked.

/// A promise that was not kept.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) oracle: &'static str,
    pub(crate) words: String,
}

macro_rules! oracles {
    ($($variant:ident = $name:literal,)*) => {
        /// One promise of `docs/POLICY.md`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Oracle { $($variant,)* }

        impl Oracle {
            pub(crate) const ALL: &[Self] = &[$(Self::$variant,)*];

            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

oracles! {
    BeliefIsWorld = "belief-is-world",
    OneLife = "one-life",
    RecordedOnce = "recorded-once",
    OrderAtAnEnd = "order-at-an-end",
    NothingToTheDead = "nothing-to-the-dead",
    IncarnationsGrow = "incarnations-grow",
    StaleIsIgnored = "stale-is-ignored",
    UpgradeCarriesOver = "upgrade-carries-over",
    TimeIsHandled = "time-is-handled",
    ChangesAreTold = "changes-are-told",

    ReasonIsTrue = "reason-is-true",
    CauseIsTrue = "cause-is-true",
    RequesterIsTrue = "requester-is-true",
    CertaintyIsTrue = "certainty-is-true",
    StopPartIsTrue = "stop-part-is-true",
    UptimeIsTrue = "uptime-is-true",

    PolicyDecides = "policy-decides",
    FirstRestartAtOnce = "first-restart-at-once",
    BackoffWithinBounds = "backoff-within-bounds",
    RowCounts = "row-counts",
    RowEnds = "row-ends",
    CrashLooping = "crash-looping",
    LimitIsExact = "limit-is-exact",
    RetryEvery = "retry-every",
    NeverOnRests = "never-on-rests",
    ProtocolErrorKills = "protocol-error-kills",
    ProtocolErrorRests = "protocol-error-rests",
    RestartsAreCounted = "restarts-are-counted",
    OomEndsAll = "oom-ends-all",

    StopIsHeard = "stop-is-heard",
    StoppedStays = "stopped-stays",
    StartRuns = "start-runs",
    RestartRunsAnew = "restart-runs-anew",
    CommandsDoNotCount = "commands-do-not-count",
    SignalIsPassedOn = "signal-is-passed-on",
    StopIsPersisted = "stop-is-persisted",

    ScheduledWaits = "scheduled-waits",
    DueStarts = "due-starts",
    OverlapIsTold = "overlap-is-told",
    OverlapIsQueued = "overlap-is-queued",
    OverlapIsReplaced = "overlap-is-replaced",
    RhythmKeepsItsInterval = "rhythm-keeps-its-interval",
    PatternComesOnce = "pattern-comes-once",
    MissedIsJudged = "missed-is-judged",

    StartTimeoutKills = "start-timeout-kills",
    ReadyIsWaitedFor = "ready-is-waited-for",
    ReadyTimeoutKills = "ready-timeout-kills",
    QuestionsAreDeclared = "questions-are-declared",
    OneQuestionAtATime = "one-question-at-a-time",
    QuestionsKeepTheirTime = "questions-keep-their-time",
    HealthIsShown = "health-is-shown",
    HealthFailureEnds = "health-failure-ends",
    WatchdogEnds = "watchdog-ends",
    MemoryIsBounded = "memory-is-bounded",
    LifetimeIsBounded = "lifetime-is-bounded",
    StoppingIsBelieved = "stopping-is-believed",
    OwnEndsAreFailures = "own-ends-are-failures",
    DeferredIsTriedAgain = "deferred-is-tried-again",
    StartsAreGentle = "starts-are-gentle",
    StartsAreFair = "starts-are-fair",

    LadderInOrder = "ladder-in-order",
    LadderTakesItsTime = "ladder-takes-its-time",
    LadderGoesOn = "ladder-goes-on",
    UnkillableIsReported = "unkillable-is-reported",
    SweepBeforeSuccessor = "sweep-before-successor",
    SweepOnlyWhenNeeded = "sweep-only-when-needed",
    SweepIsBounded = "sweep-is-bounded",

    UnchangedIsUntouched = "unchanged-is-untouched",
    ChangedRunsAnew = "changed-runs-anew",
    ChangedFilesAreTold = "changed-files-are-told",
    OnlyNewsIsTold = "only-news-is-told",
    RemovedIsForgotten = "removed-is-forgotten",
    ReplicasFollow = "replicas-follow",
    NewestConfiguration = "newest-configuration",

    PastIsRecorded = "past-is-recorded",
    ManagersDeathIsNoFailure = "managers-death-is-no-failure",
    RestStays = "rest-stays",
    KeptGoesOn = "kept-goes-on",
    KeptOutOfStepIsRenewed = "kept-out-of-step-is-renewed",
    KeptIsStopped = "kept-is-stopped",
    KeptHearsOfChanges = "kept-hears-of-changes",
    EndGoesOn = "end-goes-on",
    WaitsGoOn = "waits-go-on",
    DownGoesOn = "down-goes-on",

    AllAreAskedAtOnce = "all-are-asked-at-once",
    SecondHurries = "second-hurries",
    DownOnceWhenEmpty = "down-once-when-empty",
    NothingStartsAfterShutdown = "nothing-starts-after-shutdown",

    DependenciesAreWaitedFor = "dependencies-are-waited-for",
    DependentsStartWhenTheyCan = "dependents-start-when-they-can",
    DependentsAreSkipped = "dependents-are-skipped",
    StopIsForOne = "stop-is-for-one",
    DependentsStopFirst = "dependents-stop-first",
    DependentsRestartToo = "dependents-restart-too",

    GroupStartsInOrder = "group-starts-in-order",
    GroupRestartsTogether = "group-restarts-together",
    GroupEndsInReverse = "group-ends-in-reverse",
    GroupLimitIsExact = "group-limit-is-exact",
    GroupEndsAsOne = "group-ends-as-one",

    RollingIsOneAtATime = "rolling-is-one-at-a-time",
    RollingStopsAtAFailure = "rolling-stops-at-a-failure",

    WantedMovesOn = "wanted-moves-on",
    WantedRunsInTheEnd = "wanted-runs-in-the-end",
    StopEnds = "stop-ends",
}

/// How often each oracle was asked.
#[derive(Debug)]
pub(crate) struct Tally([u64; Oracle::ALL.len()]);

impl Default for Tally {
    fn default() -> Self {
        Self([0; Oracle::ALL.len()])
    }
}

impl Tally {
    /// Asks an oracle.
    pub(crate) fn hold(
        &mut self,
        oracle: Oracle,
        holds: bool,
        words: impl FnOnce() -> String,
    ) -> Result<(), Fault> {
        self.0[oracle as usize] += 1;
        if holds { Ok(()) } else { Err(Fault { oracle: oracle.name(), words: words() }) }
    }

    pub(crate) fn never_asked(&self) -> Vec<&'static str> {
        let idle = Oracle::ALL.iter().filter(|oracle| self.0[**oracle as usize] == 0);
        idle.map(|oracle| oracle.name()).collect()
    }
}
