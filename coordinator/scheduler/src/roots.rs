//! Jobs whose image lies beneath no worker's image roots: waiting cannot help them, so they end, precisely and soon.
//!
//! A path that is wrong and a worker that is away look alike at first. They are told apart so:
//!
//! - The folder is **outside** when no worker known has an image root that contains it. Workers that are unreachable or lost
//!   count as much as connected ones: a rack in maintenance keeps its jobs. A job that is pinned asks its worker alone.
//! - Somebody must be able to **judge**: a connected worker that meets every other requirement. Without one, the job waits.
//! - Both must have held for the whole patience, and the restart grace must be over: after a restart nobody is known at first.
//!
//! What is known lasts as long as this coordinator: workers that are away while it starts again, and for the whole grace
//! after, are not known to it.
//!
//! Jobs of one placement form a group; the groups that are outside, and differ in nothing but the folder, share one demand
//! with one set of judges. A job that comes or goes touches one group; a worker that comes or goes touches the demands, and
//! of the groups only those beneath the roots that it brings first or takes away last.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use guestkit_domain::{Duration, Placement, Revision, Time, WorkerId, WorkerProfile};

use crate::placement::{Folder, Kind, folder, mismatches};

type GroupId = u64;
type Pin = Option<WorkerId>;

/// Roots of workers that had to be forgotten for want of room; far more than a fleet's storage has mount points.
const FORGOTTEN_MAX: usize = 1024;
/// Roots named to the submitter of a job that is outside.
const NAMED_MAX: usize = 3;

/// The waiting jobs of one placement.
#[derive(Debug)]
struct Group {
    placement: Arc<Placement>,
    /// `None` for a path that climbs or is not absolute: it lies nowhere.
    folder: Option<Folder>,
    /// Waiting since, arrival.
    jobs: BTreeSet<(Time, Revision)>,
    outside: Option<Outside>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Outside {
    since: Time,
    /// The placement without pin and folder.
    demand: Arc<Placement>,
    /// Where the group stands among its demand's: from when its first job's patience counts, judges apart.
    from: Time,
}

/// What groups that are outside ask for, the folder apart.
#[derive(Debug, Default, PartialEq, Eq)]
struct Demand {
    groups: BTreeSet<(Time, GroupId)>,
    /// Connected kinds of workers that would do; for a pin, 1 or 0.
    judges: usize,
    judged_since: Option<Time>,
    due: Option<Time>,
}

/// A worker known, connected or not.
#[derive(Debug)]
struct Member {
    kind: Arc<Kind>,
    roots: BTreeSet<Folder>,
    connected: bool,
}

/// How a waiting job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// A worker that is known has a root for it.
    Inside,
    /// Nobody known has, and nobody connected could run it otherwise.
    Unjudged,
    /// It ends then.
    Ends(Time),
}

/// The image roots of all workers known, and the waiting jobs that need one.
#[derive(Debug)]
pub(crate) struct ImageRoots {
    patience: Duration,
    grace_until: Time,
    next_id: GroupId,
    groups: BTreeMap<GroupId, Group>,
    ids: BTreeMap<Arc<Placement>, GroupId>,
    /// Groups by their folders; those beneath a root follow it without a gap.
    folders: BTreeSet<(Folder, GroupId)>,
    pinned: BTreeMap<WorkerId, BTreeSet<GroupId>>,
    demands: BTreeMap<Pin, BTreeMap<Arc<Placement>, Demand>>,
    due: BTreeSet<(Time, Pin, Arc<Placement>)>,
    members: BTreeMap<WorkerId, Member>,
    /// How many connected workers there are of each kind.
    kinds: BTreeMap<Arc<Kind>, usize>,
    /// How many workers known have each root; 0 for those that only forgotten workers had.
    roots: BTreeMap<Folder, usize>,
    /// The latter, oldest first.
    forgotten: VecDeque<Folder>,
}

fn group_base(group: &Group, since: Time) -> Time {
    group.jobs.first().map_or(since, |(waiting, _)| since.max(*waiting))
}

fn demand_of(placement: &Placement) -> Arc<Placement> {
    Arc::new(Placement { worker: None, image_folder: None, ..placement.clone() })
}

impl ImageRoots {
    pub(crate) fn new(patience: Duration, grace_until: Time) -> Self {
        Self {
            patience,
            grace_until,
            next_id: 0,
            groups: BTreeMap::new(),
            ids: BTreeMap::new(),
            folders: BTreeSet::new(),
            pinned: BTreeMap::new(),
            demands: BTreeMap::new(),
            due: BTreeSet::new(),
            members: BTreeMap::new(),
            kinds: BTreeMap::new(),
            roots: BTreeMap::new(),
            forgotten: VecDeque::new(),
        }
    }

    /// A job begins to wait.
    pub(crate) fn insert(&mut self, placement: &Arc<Placement>, since: Time, arrival: Revision, now: Time) {
        let Some(image_folder) = &placement.image_folder else { return };
        if let Some(&id) = self.ids.get(placement) {
            self.edit_jobs(id, |jobs| jobs.insert((since, arrival)));
            return;
        }
        self.next_id += 1;
        let id = self.next_id;
        let folder = folder(image_folder);
        match (&placement.worker, &folder) {
            (Some(worker), _) => {
                self.pinned.entry(worker.clone()).or_default().insert(id);
            }
            (None, Some(folder)) => {
                self.folders.insert((folder.clone(), id));
            }
            (None, None) => {}
        }
        self.ids.insert(placement.clone(), id);
        let jobs = [(since, arrival)].into();
        self.groups.insert(id, Group { placement: placement.clone(), folder, jobs, outside: None });
        self.judge_group(id, now);
    }

    /// A job waits no more.
    pub(crate) fn remove(&mut self, placement: &Arc<Placement>, since: Time, arrival: Revision) {
        let Some(&id) = self.ids.get(placement) else { return };
        self.edit_jobs(id, |jobs| jobs.remove(&(since, arrival)));
        if self.groups.get(&id).is_some_and(|group| group.jobs.is_empty()) {
            self.bring_inside(id);
            let Some(group) = self.groups.remove(&id) else { return };
            self.ids.remove(&group.placement);
            if let Some(folder) = group.folder {
                self.folders.remove(&(folder, id));
            }
            if let Some(worker) = &group.placement.worker
                && let Some(groups) = self.pinned.get_mut(worker)
            {
                groups.remove(&id);
                if groups.is_empty() {
                    self.pinned.remove(worker);
                }
            }
        }
    }

    fn edit_jobs(&mut self, id: GroupId, edit: impl FnOnce(&mut BTreeSet<(Time, Revision)>) -> bool) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        edit(&mut group.jobs);
        let Some(before) = group.outside.clone() else { return };
        let from = group_base(group, before.since);
        if from == before.from {
            return;
        }
        group.outside = Some(Outside { from, ..before.clone() });
        let pin = group.placement.worker.clone();
        if let Some(demand) = self.demands.get_mut(&pin).and_then(|demands| demands.get_mut(&before.demand)) {
            demand.groups.remove(&(before.from, id));
            demand.groups.insert((from, id));
        }
        self.set_due(&pin, &before.demand);
    }

    /// A worker is connected, and is this.
    pub(crate) fn connect(&mut self, id: &WorkerId, profile: &WorkerProfile, now: Time) {
        let kind = Arc::new(Kind::of(profile));
        let roots: BTreeSet<Folder> = profile.image_roots.iter().filter_map(|root| folder(root)).collect();
        let before = self.members.get(id).map(|member| (member.kind.clone(), member.roots.clone(), member.connected));
        let same = before.as_ref().is_some_and(|(before, _, connected)| *connected && *before == kind);
        if same {
            return;
        }
        self.disconnect(id);
        let member = Member { kind: kind.clone(), roots: roots.clone(), connected: true };
        self.members.insert(id.clone(), member);
        let old = before.map(|(_, roots, _)| roots).unwrap_or_default();
        // New roots before old ones go, so that a folder that is beneath both is never outside.
        for root in roots.difference(&old) {
            self.add_root(root, now);
        }
        for root in old.difference(&roots) {
            if self.drop_root(root) {
                self.roots.remove(root);
                self.judge_beneath(root, now);
            }
        }
        if roots != old {
            self.judge_pinned(id, now);
        }
        let connected = self.kinds.entry(kind.clone()).or_default();
        *connected += 1;
        if *connected == 1 {
            self.change_judges(&None, &kind, now, |judges| judges.saturating_add(1));
        }
        self.change_judges(&Some(id.clone()), &kind, now, |_| 1);
    }

    /// A worker is connected no more; its roots are remembered.
    pub(crate) fn disconnect(&mut self, id: &WorkerId) {
        let Some(member) = self.members.get_mut(id).filter(|member| member.connected) else { return };
        member.connected = false;
        let kind = member.kind.clone();
        if let Some(connected) = self.kinds.get_mut(&kind) {
            *connected = connected.saturating_sub(1);
            if *connected == 0 {
                self.kinds.remove(&kind);
                self.change_judges(&None, &kind, Time(0), |judges| judges.saturating_sub(1));
            }
        }
        self.change_judges(&Some(id.clone()), &kind, Time(0), |_| 0);
    }

    /// A worker that is not connected is known no more; its roots are, for as long as there is room.
    pub(crate) fn forget(&mut self, id: &WorkerId, now: Time) {
        let Some(member) = self.members.remove(id) else { return };
        for root in member.roots {
            if self.drop_root(&root) {
                self.forgotten.push_back(root);
            }
        }
        while self.forgotten.len() > FORGOTTEN_MAX {
            let Some(root) = self.forgotten.pop_front() else { break };
            self.roots.remove(&root);
            self.judge_beneath(&root, now);
        }
        self.judge_pinned(id, now);
    }

    fn add_root(&mut self, root: &Folder, now: Time) {
        if let Some(workers) = self.roots.get_mut(root) {
            if *workers == 0 {
                self.forgotten.retain(|forgotten| forgotten != root);
            }
            *workers = workers.saturating_add(1);
            return;
        }
        self.roots.insert(root.clone(), 1);
        self.judge_beneath(root, now);
    }

    /// Whether no worker known has the root any more.
    fn drop_root(&mut self, root: &Folder) -> bool {
        let Some(workers) = self.roots.get_mut(root) else { return false };
        *workers = workers.saturating_sub(1);
        *workers == 0
    }

    fn judge_pinned(&mut self, id: &WorkerId, now: Time) {
        for group in self.pinned.get(id).cloned().unwrap_or_default() {
            self.judge_group(group, now);
        }
    }

    /// When the first job's patience is over.
    pub(crate) fn next_due(&self) -> Option<Time> {
        self.due.first().map(|(at, ..)| *at)
    }

    /// A job whose patience is over.
    pub(crate) fn overdue(&self, now: Time) -> Option<Revision> {
        let (_, pin, placement) = self.due.first().filter(|(at, ..)| *at <= now)?;
        let (_, id) = self.demands.get(pin)?.get(placement)?.groups.first()?;
        self.groups.get(id)?.jobs.first().map(|(_, arrival)| *arrival)
    }

    /// How a waiting job with an image stands.
    pub(crate) fn standing(&self, placement: &Arc<Placement>, since: Time) -> Standing {
        let group = self.ids.get(placement).and_then(|id| self.groups.get(id));
        let Some(outside) = group.and_then(|group| group.outside.as_ref()) else { return Standing::Inside };
        let demand = self.demands.get(&placement.worker).and_then(|demands| demands.get(&outside.demand));
        match demand.and_then(|demand| demand.judged_since) {
            Some(judged) => Standing::Ends(self.end_of(judged.max(outside.since).max(since))),
            None => Standing::Unjudged,
        }
    }

    fn end_of(&self, from: Time) -> Time {
        from.plus(self.patience).max(self.grace_until)
    }

    /// A few of the roots known, in words.
    pub(crate) fn named(&self, pin: Option<&WorkerId>) -> String {
        let own = pin.and_then(|worker| self.members.get(worker)).map(|member| &member.roots);
        let (count, some): (usize, Vec<&Folder>) = match (pin, own) {
            (None, _) => (self.roots.len(), self.roots.keys().take(NAMED_MAX).collect()),
            (Some(_), Some(own)) => (own.len(), own.iter().take(NAMED_MAX).collect()),
            (Some(_), None) => (0, Vec::new()),
        };
        let shown: Vec<String> = some.into_iter().map(|root| format!("/{}", root.join("/"))).collect();
        match count.saturating_sub(shown.len()) {
            _ if shown.is_empty() => "none".into(),
            0 => shown.join(", "),
            more => format!("{} and {more} more", shown.join(", ")),
        }
    }

    fn covered(&self, group: &Group) -> bool {
        let Some(folder) = &group.folder else { return false };
        let mut above = (0..=folder.len()).filter_map(|length| folder.get(..length));
        match &group.placement.worker {
            None => above.any(|root| self.roots.contains_key(root)),
            Some(worker) => {
                self.members.get(worker).is_some_and(|member| above.any(|root| member.roots.contains(root)))
            }
        }
    }

    /// Looks again at every group whose folder is this one or beneath it.
    fn judge_beneath(&mut self, root: &Folder, now: Time) {
        let beneath: Vec<GroupId> = self
            .folders
            .range((root.clone(), 0)..)
            .take_while(|(folder, _)| folder.starts_with(root))
            .map(|(_, id)| *id)
            .collect();
        for id in beneath {
            self.judge_group(id, now);
        }
    }

    fn judge_group(&mut self, id: GroupId, now: Time) {
        let Some(group) = self.groups.get(&id) else { return };
        match (self.covered(group), &group.outside) {
            (true, Some(_)) => self.bring_inside(id),
            (false, None) => self.put_outside(id, now),
            _ => {}
        }
    }

    fn put_outside(&mut self, id: GroupId, now: Time) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let (pin, placement, from) =
            (group.placement.worker.clone(), demand_of(&group.placement), group_base(group, now));
        group.outside = Some(Outside { since: now, demand: placement.clone(), from });
        if !self.demands.get(&pin).is_some_and(|demands| demands.contains_key(&placement)) {
            let judges = self.judges(&pin, &placement);
            let judged_since = (judges > 0).then_some(now);
            let demand = Demand { judges, judged_since, ..Demand::default() };
            self.demands.entry(pin.clone()).or_default().insert(placement.clone(), demand);
        }
        if let Some(demand) = self.demands.get_mut(&pin).and_then(|demands| demands.get_mut(&placement)) {
            demand.groups.insert((from, id));
        }
        self.set_due(&pin, &placement);
    }

    fn bring_inside(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some(outside) = group.outside.take() else { return };
        let pin = group.placement.worker.clone();
        let Some(demands) = self.demands.get_mut(&pin) else { return };
        let Some(demand) = demands.get_mut(&outside.demand) else { return };
        demand.groups.remove(&(outside.from, id));
        if !demand.groups.is_empty() {
            return self.set_due(&pin, &outside.demand);
        }
        if let Some(due) = demands.remove(&outside.demand).and_then(|demand| demand.due) {
            self.due.remove(&(due, pin.clone(), outside.demand));
        }
        if demands.is_empty() {
            self.demands.remove(&pin);
        }
    }

    fn judges(&self, pin: &Pin, placement: &Placement) -> usize {
        match pin {
            None => self.kinds.keys().filter(|kind| mismatches(placement, kind).is_empty()).count(),
            Some(worker) => {
                let member = self.members.get(worker).filter(|member| member.connected);
                usize::from(member.is_some_and(|member| mismatches(placement, &member.kind).is_empty()))
            }
        }
    }

    fn change_judges(&mut self, pin: &Pin, kind: &Kind, now: Time, change: impl Fn(usize) -> usize) {
        let Some(demands) = self.demands.get_mut(pin) else { return };
        let mut changed = Vec::new();
        for (placement, demand) in demands.iter_mut().filter(|(placement, _)| mismatches(placement, kind).is_empty()) {
            demand.judges = change(demand.judges);
            if (demand.judges > 0) != demand.judged_since.is_some() {
                demand.judged_since = (demand.judges > 0).then_some(now);
                changed.push(placement.clone());
            }
        }
        for placement in changed {
            self.set_due(pin, &placement);
        }
    }

    fn set_due(&mut self, pin: &Pin, placement: &Arc<Placement>) {
        let (patience, grace_until) = (self.patience, self.grace_until);
        let Some(demand) = self.demands.get_mut(pin).and_then(|demands| demands.get_mut(placement)) else { return };
        let first = demand.judged_since.zip(demand.groups.first());
        let due = first.map(|(judged, (from, _))| judged.max(*from).plus(patience).max(grace_until));
        if due == demand.due {
            return;
        }
        let before = std::mem::replace(&mut demand.due, due);
        if let Some(at) = before {
            self.due.remove(&(at, pin.clone(), placement.clone()));
        }
        if let Some(at) = due {
            self.due.insert((at, pin.clone(), placement.clone()));
        }
    }
}

/// For [`crate::Scheduler::check`].
impl ImageRoots {
    pub(crate) fn holds(&self, placement: &Arc<Placement>, since: Time, arrival: Revision) -> bool {
        let group = self.ids.get(placement).and_then(|id| self.groups.get(id));
        group.is_some_and(|group| group.jobs.contains(&(since, arrival)))
    }

    /// Whether a worker that was forgotten had a root for the folder.
    pub(crate) fn remembers(&self, path: &str) -> bool {
        folder(path).is_some_and(|folder| self.forgotten.iter().any(|root| folder.starts_with(root)))
    }

    /// What is derived, computed again from groups and members, must be what was kept.
    pub(crate) fn check(&self, waiting: usize) -> Vec<String> {
        let mut broken = Vec::new();
        let kept: usize = self.groups.values().map(|group| group.jobs.len()).sum();
        if kept != waiting || self.groups.values().any(|group| group.jobs.is_empty()) {
            broken.push(format!("{waiting} jobs with images wait, {kept} are kept"));
        }
        let mut roots: BTreeMap<Folder, usize> = self.forgotten.iter().map(|root| (root.clone(), 0)).collect();
        let mut kinds: BTreeMap<Arc<Kind>, usize> = BTreeMap::new();
        for member in self.members.values() {
            for root in &member.roots {
                *roots.entry(root.clone()).or_default() += 1;
            }
            if member.connected {
                *kinds.entry(member.kind.clone()).or_default() += 1;
            }
        }
        if roots != self.roots || kinds != self.kinds {
            broken.push("the image roots kept are not those of the workers".into());
        }
        self.check_demands(&mut broken);
        broken
    }

    fn check_demands(&self, broken: &mut Vec<String>) {
        let mut groups = BTreeMap::<(Pin, Arc<Placement>), BTreeSet<_>>::new();
        for (id, group) in &self.groups {
            if self.covered(group) == group.outside.is_some() {
                broken.push(format!("group {id} is outside or is not, but not both"));
            }
            let Some(outside) = &group.outside else { continue };
            let from = group_base(group, outside.since);
            groups
                .entry((group.placement.worker.clone(), demand_of(&group.placement)))
                .or_default()
                .insert((from, *id));
        }
        let mut due = BTreeSet::new();
        for (pin, demands) in &self.demands {
            for (placement, demand) in demands {
                let members = groups.remove(&(pin.clone(), placement.clone())).unwrap_or_default();
                let judges = self.judges(pin, placement);
                let judged = (judges > 0) == demand.judged_since.is_some();
                if members != demand.groups || members.is_empty() || judges != demand.judges || !judged {
                    broken.push(format!("a demand has {members:?} and {judges} judges, kept {demand:?}"));
                }
                due.extend(demand.due.map(|at| (at, pin.clone(), placement.clone())));
            }
        }
        if !groups.is_empty() || due != self.due {
            broken.push("the demands are not those of the groups outside".into());
        }
    }
}
