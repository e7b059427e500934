//! Who is next. Jobs wait in a tournament of ordered sets, so that neither a million waiting jobs nor a thousand workers are
//! ever walked through:
//!
//! ```text
//! job ──► class: equal requirements ──► lane: classes that the same workers may run ──► site: workers of one kind
//!         its jobs in order              the first job of each class                    the first job of each lane
//! ```
//!
//! Each level holds, per priority and namespace, only the heads of the level below; a job that comes or goes touches one entry
//! per level. A site orders its groups (one namespace's jobs of one priority) by priority, risen by ageing, then by the
//! namespace's turn (stride scheduling: each start moves a namespace back by 1/weight), then by arrival.
//!
//! A worker that jobs are pinned to is a site of its own for those jobs. Lanes of a concurrency key at its limit are taken out
//! of their sites as a whole. Nothing here survives a restart; it is built again from the ledger.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use guestkit_domain::{BootId, Duration, JobSpec, Namespace, Placement, Revision, Time, WorkerId};

use crate::config::Config;
use crate::ledger::{JobEntry, JobRow};
use crate::placement::{Kind, liking, mismatches};

type ClassId = u64;
type LaneId = u64;
type SiteId = u64;
type NameId = u64;

/// 0 is priority 10, 9 is priority 1: lower goes first.
type Level = u8;

/// One start costs a namespace of weight 1 this much.
const STRIDE: u64 = 1 << 20;
/// Classes and kinds kept though nothing waits in them, so that a fleet with little to do does not compute them again per job.
const IDLE_CLASSES_MAX: usize = 1024;
const IDLE_KINDS_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct ClassKey {
    placement: Arc<Placement>,
    declined: BTreeMap<WorkerId, BootId>,
    concurrency: Option<Arc<str>>,
}

impl ClassKey {
    fn of(spec: &JobSpec, row: &JobRow) -> Self {
        Self {
            placement: spec.placement.clone(),
            declined: row.declined.clone(),
            concurrency: spec.concurrency_key.clone(),
        }
    }
}

#[derive(Debug)]
struct Class {
    key: ClassKey,
    lane: LaneId,
    jobs: Waiting,
}

/// Jobs in order, a row for each priority and namespace: an arrival is all that each of a million costs here.
#[derive(Debug, Default)]
struct Waiting {
    rows: BTreeMap<(Level, NameId), BTreeSet<Revision>>,
}

impl Waiting {
    fn insert(&mut self, level: Level, name: NameId, arrival: Revision) {
        self.rows.entry((level, name)).or_default().insert(arrival);
    }

    fn remove(&mut self, level: Level, name: NameId, arrival: Revision) -> bool {
        let Some(row) = self.rows.get_mut(&(level, name)) else { return false };
        let removed = row.remove(&arrival);
        if row.is_empty() {
            self.rows.remove(&(level, name));
        }
        removed
    }

    fn row(&self, level: Level, name: NameId) -> Option<&BTreeSet<Revision>> {
        self.rows.get(&(level, name))
    }

    fn head(&self, level: Level, name: NameId) -> Option<Revision> {
        self.row(level, name)?.first().copied()
    }

    /// The first job of each row.
    fn heads(&self) -> Vec<(Level, NameId, Revision)> {
        let head = |(&(level, name), row): (&(Level, NameId), &BTreeSet<Revision>)| Some((level, name, *row.first()?));
        self.rows.iter().filter_map(head).collect()
    }

    fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn len(&self) -> usize {
        self.rows.values().map(BTreeSet::len).sum()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct LaneKey {
    sites: Vec<SiteId>,
    declined: BTreeMap<WorkerId, BootId>,
    concurrency: Option<Arc<str>>,
}

#[derive(Debug)]
struct Lane {
    key: LaneKey,
    classes: usize,
    heads: BTreeSet<(Level, NameId, Revision, ClassId)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Group {
    /// Levels won by waiting.
    boost: Level,
    /// Nothing of it was started here since.
    since: Time,
}

#[derive(Debug, Default)]
struct Site {
    kind: Option<Arc<Kind>>,
    /// Connected workers of the kind.
    workers: usize,
    heads: BTreeSet<(Level, NameId, Revision, LaneId)>,
    groups: BTreeMap<(Level, NameId), Group>,
    /// Groups in the order of their turns: risen level, pass of the namespace; of one namespace's the one that rose farthest,
    /// because it has waited longest.
    turns: BTreeSet<(Level, u64, NameId, Reverse<Level>)>,
    /// When a group rises next.
    ageing: BTreeSet<(Time, Level, NameId)>,
    /// Workers with free slots, most free first.
    free: BTreeSet<(Reverse<u32>, WorkerId, BootId)>,
}

#[derive(Debug)]
struct Name {
    namespace: Namespace,
    pass: u64,
    stride: u64,
    waiting: usize,
    spots: BTreeSet<(SiteId, Level)>,
}

#[derive(Debug, Default)]
struct KeyUse {
    running: u32,
    lanes: BTreeSet<LaneId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Offer {
    boot: BootId,
    kind: SiteId,
    free: u32,
}

/// The waiting jobs and the free slots.
#[derive(Debug)]
pub(crate) struct Queue {
    ageing_step: Duration,
    weights: BTreeMap<Namespace, u32>,
    limits: BTreeMap<Arc<str>, u32>,
    limit_default: u32,
    next_id: u64,
    classes: BTreeMap<ClassId, Class>,
    class_ids: BTreeMap<ClassKey, ClassId>,
    idle_classes: BTreeSet<ClassId>,
    pinned: BTreeMap<WorkerId, BTreeSet<ClassId>>,
    lanes: BTreeMap<LaneId, Lane>,
    lane_ids: BTreeMap<LaneKey, LaneId>,
    sites: BTreeMap<SiteId, Site>,
    kinds: BTreeMap<Arc<Kind>, SiteId>,
    pins: BTreeMap<WorkerId, SiteId>,
    offers: BTreeMap<WorkerId, Offer>,
    members: BTreeMap<WorkerId, SiteId>,
    open: BTreeSet<SiteId>,
    names: BTreeMap<NameId, Name>,
    name_ids: BTreeMap<Namespace, NameId>,
    keys: BTreeMap<Arc<str>, KeyUse>,
    /// The pass of the namespace served last: a namespace that comes back does not use up turns it did not want.
    virtual_time: u64,
}

/// The job that is next, and the lane it stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Next {
    pub(crate) arrival: Revision,
    lane: LaneId,
}

fn level_of(spec: &JobSpec) -> Level {
    10 - spec.priority.get().min(10)
}

impl Queue {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            // Zero would make every group rise for ever.
            ageing_step: config.ageing_step.max(Duration::from_millis(1)),
            weights: config.weights.clone(),
            limits: config.concurrency_limits.clone(),
            limit_default: config.concurrency_limit_default,
            next_id: 0,
            classes: BTreeMap::new(),
            class_ids: BTreeMap::new(),
            idle_classes: BTreeSet::new(),
            pinned: BTreeMap::new(),
            lanes: BTreeMap::new(),
            lane_ids: BTreeMap::new(),
            sites: BTreeMap::new(),
            kinds: BTreeMap::new(),
            pins: BTreeMap::new(),
            offers: BTreeMap::new(),
            members: BTreeMap::new(),
            open: BTreeSet::new(),
            names: BTreeMap::new(),
            name_ids: BTreeMap::new(),
            keys: BTreeMap::new(),
            virtual_time: 0,
        }
    }

    /// Lets equal placements and namespaces of waiting jobs share their memory.
    pub(crate) fn intern(&self, spec: &mut JobSpec) {
        let key = ClassKey {
            placement: spec.placement.clone(),
            declined: BTreeMap::new(),
            concurrency: spec.concurrency_key.clone(),
        };
        if let Some(class) = self.class_ids.get(&key).and_then(|id| self.classes.get(id)) {
            spec.placement = class.key.placement.clone();
            spec.concurrency_key = class.key.concurrency.clone();
        }
        if let Some(name) = self.name_ids.get(&spec.namespace).and_then(|id| self.names.get(id)) {
            spec.namespace = name.namespace.clone();
        }
    }

    /// A job begins to wait.
    pub(crate) fn insert(&mut self, entry: &JobEntry, now: Time) {
        let class_id = self.class(ClassKey::of(&entry.spec, &entry.row));
        let name = self.name(&entry.spec.namespace);
        let level = level_of(&entry.spec);
        if let Some(name) = self.names.get_mut(&name) {
            name.waiting += 1;
        }
        let Some(class) = self.classes.get_mut(&class_id) else { return };
        self.idle_classes.remove(&class_id);
        let lane = class.lane;
        let head = class.jobs.head(level, name);
        class.jobs.insert(level, name, entry.arrival);
        if head.is_none_or(|head| entry.arrival < head) {
            // The new head first: a group that were empty in between would lose its age.
            self.lane_insert(lane, (level, name, entry.arrival, class_id), now);
            if let Some(head) = head {
                self.lane_remove(lane, (level, name, head, class_id));
            }
        }
    }

    /// A job waits no more.
    pub(crate) fn remove(&mut self, entry: &JobEntry, now: Time) {
        let Some(&class_id) = self.class_ids.get(&ClassKey::of(&entry.spec, &entry.row)) else { return };
        let Some(&name) = self.name_ids.get(&entry.spec.namespace) else { return };
        let level = level_of(&entry.spec);
        let Some(class) = self.classes.get_mut(&class_id) else { return };
        let lane = class.lane;
        let was_head = class.jobs.head(level, name) == Some(entry.arrival);
        if !class.jobs.remove(level, name, entry.arrival) {
            return;
        }
        let head = class.jobs.head(level, name);
        let empty = class.jobs.is_empty();
        if was_head {
            if let Some(head) = head {
                self.lane_insert(lane, (level, name, head, class_id), now);
            }
            self.lane_remove(lane, (level, name, entry.arrival, class_id));
        }
        if empty {
            self.idle_classes.insert(class_id);
            self.forget_idle_classes();
        }
        if let Some(name) = self.names.get_mut(&name) {
            name.waiting -= 1;
        }
        self.forget_idle_names();
    }

    /// A job with this key begins to run.
    pub(crate) fn key_taken(&mut self, key: &Arc<str>, now: Time) {
        self.key_change(key, now, |running| running.saturating_add(1));
    }

    /// A job with this key has stopped running.
    pub(crate) fn key_given_back(&mut self, key: &Arc<str>, now: Time) {
        self.key_change(key, now, |running| running.saturating_sub(1));
    }

    /// Jobs with this key that run, and how many may.
    pub(crate) fn key_use(&self, key: &Arc<str>) -> (u32, u32) {
        (self.keys.get(key).map_or(0, |used| used.running), self.limit(key))
    }

    fn limit(&self, key: &Arc<str>) -> u32 {
        self.limits.get(key).copied().unwrap_or(self.limit_default)
    }

    fn blocked(&self, key: Option<&Arc<str>>) -> bool {
        key.is_some_and(|key| {
            let (running, limit) = self.key_use(key);
            running >= limit
        })
    }

    fn key_change(&mut self, key: &Arc<str>, now: Time, change: impl FnOnce(u32) -> u32) {
        let before = self.blocked(Some(key));
        let used = self.keys.entry(key.clone()).or_default();
        used.running = change(used.running);
        let lanes = used.lanes.clone();
        let empty = used.running == 0 && lanes.is_empty();
        let after = self.blocked(Some(key));
        if empty {
            self.keys.remove(key);
        }
        if before == after {
            return;
        }
        for id in lanes {
            for head in self.lane_heads(id) {
                if after {
                    self.sites_remove(id, head);
                } else {
                    self.sites_insert(id, head, now);
                }
            }
        }
    }

    /// A worker is connected, as one of this kind.
    pub(crate) fn join(&mut self, worker: &WorkerId, kind: Kind, now: Time) {
        let site = self.kind(Arc::new(kind), now);
        match self.members.insert(worker.clone(), site) {
            Some(before) if before == site => return,
            Some(before) => self.leave_site(before, now),
            None => {}
        }
        if let Some(site) = self.sites.get_mut(&site) {
            site.workers += 1;
        }
        for class in self.pinned.get(worker).cloned().unwrap_or_default() {
            self.move_class(class, now);
        }
    }

    /// A worker is connected no more.
    pub(crate) fn leave(&mut self, worker: &WorkerId, now: Time) {
        self.withdraw(worker);
        if let Some(site) = self.members.remove(worker) {
            self.leave_site(site, now);
            for class in self.pinned.get(worker).cloned().unwrap_or_default() {
                self.move_class(class, now);
            }
        }
    }

    fn leave_site(&mut self, site: SiteId, now: Time) {
        if let Some(site) = self.sites.get_mut(&site) {
            site.workers = site.workers.saturating_sub(1);
        }
        let idle: Vec<SiteId> = self
            .kinds
            .values()
            .copied()
            .filter(|id| self.sites.get(id).is_some_and(|site| site.workers == 0))
            .collect();
        if idle.len() > IDLE_KINDS_MAX
            && let Some(oldest) = idle.into_iter().min()
        {
            self.forget_kind(oldest, now);
        }
    }

    fn forget_kind(&mut self, id: SiteId, now: Time) {
        let Some(kind) = self.sites.get(&id).and_then(|site| site.kind.clone()) else { return };
        self.kinds.remove(&kind);
        let touched: Vec<ClassId> = self
            .classes
            .iter()
            .filter(|(_, class)| self.lanes.get(&class.lane).is_some_and(|lane| lane.key.sites.contains(&id)))
            .map(|(class, _)| *class)
            .collect();
        for class in touched {
            self.move_class(class, now);
        }
        self.sites.remove(&id);
        self.open.remove(&id);
    }

    /// A worker that has joined takes this many more leases.
    pub(crate) fn offer(&mut self, worker: &WorkerId, boot: &BootId, free: u32) {
        let Some(&kind) = self.members.get(worker) else { return };
        let offer = Offer { boot: boot.clone(), kind, free };
        if self.offers.get(worker) == Some(&offer) {
            return;
        }
        self.withdraw(worker);
        if free == 0 {
            return;
        }
        for id in self.worker_sites(worker, kind) {
            if let Some(site) = self.sites.get_mut(&id) {
                site.free.insert((Reverse(free), worker.clone(), boot.clone()));
            }
            self.reopen(id);
        }
        self.offers.insert(worker.clone(), offer);
    }

    /// A worker takes no more leases.
    pub(crate) fn withdraw(&mut self, worker: &WorkerId) {
        let Some(offer) = self.offers.remove(worker) else { return };
        for id in self.worker_sites(worker, offer.kind) {
            if let Some(site) = self.sites.get_mut(&id) {
                site.free.remove(&(Reverse(offer.free), worker.clone(), offer.boot.clone()));
            }
            self.reopen(id);
        }
    }

    fn worker_sites(&self, worker: &WorkerId, kind: SiteId) -> impl Iterator<Item = SiteId> + use<> {
        std::iter::once(kind).chain(self.pins.get(worker).copied())
    }

    /// The job that is next among those a free worker may run.
    pub(crate) fn next(&mut self, now: Time) -> Option<Next> {
        let open: Vec<SiteId> = self.open.iter().copied().collect();
        for id in &open {
            self.rise(*id, now);
        }
        let best = open.iter().filter_map(|id| self.first_of(*id)).min()?;
        Some(Next { arrival: best.2, lane: best.3 })
    }

    fn first_of(&self, id: SiteId) -> Option<(Level, u64, Revision, LaneId)> {
        let site = self.sites.get(&id)?;
        site.turns.iter().find_map(|&(risen, pass, name, Reverse(level))| {
            site.heads
                .range((level, name, Revision(0), 0)..=(level, name, Revision(u64::MAX), u64::MAX))
                .find(|(.., lane)| self.lanes.get(lane).is_some_and(|lane| site.takes(&lane.key.declined).is_some()))
                .map(|&(_, _, arrival, lane)| (risen, pass, arrival, lane))
        })
    }

    /// The worker a job should go to: the one it likes best, then the one with most free slots.
    pub(crate) fn worker_for(&self, next: Next, spec: &JobSpec) -> Option<WorkerId> {
        let lane = self.lanes.get(&next.lane)?;
        lane.key
            .sites
            .iter()
            .filter_map(|id| self.sites.get(id))
            .filter_map(|site| {
                let (free, worker) = site.takes(&lane.key.declined)?;
                let liked = site.kind.as_ref().map_or(0, |kind| liking(spec, kind));
                Some((liked, free, Reverse(worker)))
            })
            .max()
            .map(|(_, _, Reverse(worker))| worker.clone())
    }

    /// A job of this description was started on a worker: its namespace moves back, its group is young again there.
    pub(crate) fn served(&mut self, spec: &JobSpec, worker: &WorkerId, now: Time) {
        let Some(&id) = self.name_ids.get(&spec.namespace) else { return };
        self.charge(id);
        let Some(&kind) = self.members.get(worker) else { return };
        let level = level_of(spec);
        for site in self.worker_sites(worker, kind) {
            self.set_group(site, level, id, Group { boost: 0, since: now });
        }
    }

    fn charge(&mut self, id: NameId) {
        let Some(name) = self.names.get_mut(&id) else { return };
        let before = name.pass;
        self.virtual_time = self.virtual_time.max(before);
        name.pass = before.saturating_add(name.stride);
        let after = name.pass;
        for (site, level) in name.spots.clone() {
            let Some(site) = self.sites.get_mut(&site) else { continue };
            let Some(group) = site.groups.get(&(level, id)) else { continue };
            let risen = level.saturating_sub(group.boost);
            site.turns.remove(&(risen, before, id, Reverse(level)));
            site.turns.insert((risen, after, id, Reverse(level)));
        }
    }

    /// Lets groups that have waited rise.
    fn rise(&mut self, id: SiteId, now: Time) {
        while let Some(site) = self.sites.get(&id) {
            let Some(&(at, level, name)) = site.ageing.first().filter(|(at, ..)| *at <= now) else { return };
            let Some(group) = site.groups.get(&(level, name)).copied() else { return };
            let steps = now.since(group.since).as_millis() / self.ageing_step.as_millis();
            let boost = Level::try_from(steps).unwrap_or(Level::MAX).min(level);
            debug_assert!(boost > group.boost, "a group that is due at {at:?} rises");
            self.set_group(id, level, name, Group { boost, since: group.since });
        }
    }

    fn rises_at(&self, level: Level, group: Group) -> Option<Time> {
        (group.boost < level).then(|| group.since.plus(self.ageing_step.saturating_mul(u32::from(group.boost) + 1)))
    }

    fn set_group(&mut self, site_id: SiteId, level: Level, id: NameId, group: Group) {
        let Some(pass) = self.names.get(&id).map(|name| name.pass) else { return };
        let Some(before) = self.sites.get(&site_id).and_then(|site| site.groups.get(&(level, id)).copied()) else {
            return;
        };
        let (old_rise, new_rise) = (self.rises_at(level, before), self.rises_at(level, group));
        let Some(site) = self.sites.get_mut(&site_id) else { return };
        site.turns.remove(&(level.saturating_sub(before.boost), pass, id, Reverse(level)));
        site.turns.insert((level.saturating_sub(group.boost), pass, id, Reverse(level)));
        if let Some(at) = old_rise {
            site.ageing.remove(&(at, level, id));
        }
        if let Some(at) = new_rise {
            site.ageing.insert((at, level, id));
        }
        site.groups.insert((level, id), group);
    }

    fn add_group(&mut self, site_id: SiteId, level: Level, id: NameId, now: Time) {
        let group = Group { boost: 0, since: now };
        let rise = self.rises_at(level, group);
        let Some(name) = self.names.get_mut(&id) else { return };
        name.spots.insert((site_id, level));
        let Some(site) = self.sites.get_mut(&site_id) else { return };
        site.turns.insert((level, name.pass, id, Reverse(level)));
        if let Some(at) = rise {
            site.ageing.insert((at, level, id));
        }
        site.groups.insert((level, id), group);
    }

    fn drop_group(&mut self, site_id: SiteId, level: Level, id: NameId) {
        let Some(group) = self.sites.get_mut(&site_id).and_then(|site| site.groups.remove(&(level, id))) else {
            return;
        };
        let rise = self.rises_at(level, group);
        let Some(name) = self.names.get_mut(&id) else { return };
        name.spots.remove(&(site_id, level));
        let Some(site) = self.sites.get_mut(&site_id) else { return };
        site.turns.remove(&(level.saturating_sub(group.boost), name.pass, id, Reverse(level)));
        if let Some(at) = rise {
            site.ageing.remove(&(at, level, id));
        }
    }

    fn mint(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn name(&mut self, namespace: &Namespace) -> NameId {
        if let Some(&id) = self.name_ids.get(namespace) {
            if let Some(name) = self.names.get_mut(&id)
                && name.waiting == 0
            {
                name.pass = name.pass.max(self.virtual_time);
            }
            return id;
        }
        let id = self.mint();
        let weight = self.weights.get(namespace).copied().unwrap_or(1).max(1);
        let name = Name {
            namespace: namespace.clone(),
            pass: self.virtual_time,
            stride: (STRIDE / u64::from(weight)).max(1),
            waiting: 0,
            spots: BTreeSet::new(),
        };
        self.names.insert(id, name);
        self.name_ids.insert(namespace.clone(), id);
        id
    }

    /// Namespaces nothing waits in are kept while they are behind, so that leaving and coming back gains nothing; swept when
    /// they outnumber the others, which costs nothing on average.
    fn forget_idle_names(&mut self) {
        if self.names.len() < 1024 || !self.names.len().is_power_of_two() {
            return;
        }
        let virtual_time = self.virtual_time;
        self.names.retain(|_, name| name.waiting > 0 || name.pass > virtual_time);
        let names = &self.names;
        self.name_ids.retain(|_, id| names.contains_key(id));
    }

    fn class(&mut self, key: ClassKey) -> ClassId {
        if let Some(&id) = self.class_ids.get(&key) {
            return id;
        }
        let id = self.mint();
        if let Some(worker) = &key.placement.worker {
            self.pinned.entry(worker.clone()).or_default().insert(id);
            self.pin(worker.clone());
        }
        let lane = self.lane(self.lane_key(&key));
        self.class_ids.insert(key.clone(), id);
        self.classes.insert(id, Class { key, lane, jobs: Waiting::default() });
        self.idle_classes.insert(id);
        id
    }

    fn forget_idle_classes(&mut self) {
        while self.idle_classes.len() > IDLE_CLASSES_MAX {
            let Some(id) = self.idle_classes.pop_first() else { return };
            let Some(class) = self.classes.remove(&id) else { return };
            self.class_ids.remove(&class.key);
            self.lane_left(class.lane);
            if let Some(worker) = &class.key.placement.worker
                && let Some(pinned) = self.pinned.get_mut(worker)
            {
                pinned.remove(&id);
                if pinned.is_empty() {
                    self.pinned.remove(worker);
                    if let Some(site) = self.pins.remove(worker) {
                        self.sites.remove(&site);
                        self.open.remove(&site);
                    }
                }
            }
        }
    }

    fn pin(&mut self, worker: WorkerId) {
        if self.pins.contains_key(&worker) {
            return;
        }
        let id = self.mint();
        let mut site = Site::default();
        if let Some(offer) = self.offers.get(&worker) {
            site.free.insert((Reverse(offer.free), worker.clone(), offer.boot.clone()));
        }
        self.sites.insert(id, site);
        self.pins.insert(worker, id);
    }

    fn kind(&mut self, kind: Arc<Kind>, now: Time) -> SiteId {
        if let Some(&id) = self.kinds.get(&kind) {
            return id;
        }
        let id = self.mint();
        self.sites.insert(id, Site { kind: Some(kind.clone()), ..Site::default() });
        self.kinds.insert(kind.clone(), id);
        let fitting: Vec<ClassId> = self
            .classes
            .iter()
            .filter(|(_, class)| {
                class.key.placement.worker.is_none() && mismatches(&class.key.placement, &kind).is_empty()
            })
            .map(|(class, _)| *class)
            .collect();
        for class in fitting {
            self.move_class(class, now);
        }
        id
    }

    fn lane_key(&self, key: &ClassKey) -> LaneKey {
        let fits = |id: &SiteId| {
            let kind = self.sites.get(id).and_then(|site| site.kind.as_ref());
            kind.is_some_and(|kind| mismatches(&key.placement, kind).is_empty())
        };
        let mut sites: Vec<SiteId> = match &key.placement.worker {
            Some(worker) => {
                let fit = self.members.get(worker).is_some_and(fits);
                self.pins.get(worker).copied().filter(|_| fit).into_iter().collect()
            }
            None => self.kinds.values().copied().filter(fits).collect(),
        };
        sites.sort_unstable();
        LaneKey { sites, declined: key.declined.clone(), concurrency: key.concurrency.clone() }
    }

    fn lane(&mut self, key: LaneKey) -> LaneId {
        if let Some(&id) = self.lane_ids.get(&key) {
            if let Some(lane) = self.lanes.get_mut(&id) {
                lane.classes += 1;
            }
            return id;
        }
        let id = self.mint();
        if let Some(concurrency) = &key.concurrency {
            self.keys.entry(concurrency.clone()).or_default().lanes.insert(id);
        }
        self.lane_ids.insert(key.clone(), id);
        self.lanes.insert(id, Lane { key, classes: 1, heads: BTreeSet::new() });
        id
    }

    fn lane_left(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        lane.classes -= 1;
        if lane.classes > 0 {
            return;
        }
        let Some(lane) = self.lanes.remove(&id) else { return };
        self.lane_ids.remove(&lane.key);
        if let Some(key) = &lane.key.concurrency
            && let Some(used) = self.keys.get_mut(key)
        {
            used.lanes.remove(&id);
            if used.running == 0 && used.lanes.is_empty() {
                self.keys.remove(key);
            }
        }
    }

    /// Finds a class its lane again, after the workers it may run on have changed.
    fn move_class(&mut self, id: ClassId, now: Time) {
        let Some(class) = self.classes.get(&id) else { return };
        let before = class.lane;
        let heads = class.jobs.heads();
        let key = self.lane_key(&class.key);
        let after = self.lane(key);
        if after != before {
            if let Some(class) = self.classes.get_mut(&id) {
                class.lane = after;
            }
            for &(level, name, arrival) in &heads {
                self.lane_insert(after, (level, name, arrival, id), now);
            }
            for (level, name, arrival) in heads {
                self.lane_remove(before, (level, name, arrival, id));
            }
        }
        self.lane_left(before);
    }

    fn lane_insert(&mut self, id: LaneId, head: (Level, NameId, Revision, ClassId), now: Time) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let before = lane.head(head.0, head.1);
        lane.heads.insert(head);
        let after = lane.head(head.0, head.1);
        self.lane_head_changed(id, (head.0, head.1), before, after, now);
    }

    fn lane_remove(&mut self, id: LaneId, head: (Level, NameId, Revision, ClassId)) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let before = lane.head(head.0, head.1);
        lane.heads.remove(&head);
        let after = lane.head(head.0, head.1);
        // No clock is needed: a head that follows another belongs to a group that is there.
        self.lane_head_changed(id, (head.0, head.1), before, after, Time(0));
    }

    fn lane_head_changed(
        &mut self,
        id: LaneId,
        (level, name): (Level, NameId),
        before: Option<Revision>,
        after: Option<Revision>,
        now: Time,
    ) {
        if before == after || self.lanes.get(&id).is_none_or(|lane| self.blocked(lane.key.concurrency.as_ref())) {
            return;
        }
        // The new head first, so that the group is not dropped and made again, which would take its age.
        if let Some(arrival) = after {
            self.sites_insert(id, (level, name, arrival), now);
        }
        if let Some(arrival) = before {
            self.sites_remove(id, (level, name, arrival));
        }
    }

    fn lane_heads(&self, id: LaneId) -> Vec<(Level, NameId, Revision)> {
        let Some(lane) = self.lanes.get(&id) else { return Vec::new() };
        heads(lane.heads.iter().map(|&(level, name, arrival, _)| (level, name, arrival)))
    }

    fn sites_insert(&mut self, lane: LaneId, (level, name, arrival): (Level, NameId, Revision), now: Time) {
        for id in self.lanes.get(&lane).map(|lane| lane.key.sites.clone()).unwrap_or_default() {
            let Some(site) = self.sites.get_mut(&id) else { continue };
            site.heads.insert((level, name, arrival, lane));
            if !site.groups.contains_key(&(level, name)) {
                self.add_group(id, level, name, now);
            }
            self.reopen(id);
        }
    }

    fn sites_remove(&mut self, lane: LaneId, (level, name, arrival): (Level, NameId, Revision)) {
        for id in self.lanes.get(&lane).map(|lane| lane.key.sites.clone()).unwrap_or_default() {
            let Some(site) = self.sites.get_mut(&id) else { continue };
            site.heads.remove(&(level, name, arrival, lane));
            if site.head(level, name).is_none() {
                self.drop_group(id, level, name);
            }
            self.reopen(id);
        }
    }

    fn reopen(&mut self, id: SiteId) {
        let open = self.sites.get(&id).is_some_and(|site| !site.free.is_empty() && !site.heads.is_empty());
        if open {
            self.open.insert(id);
        } else {
            self.open.remove(&id);
        }
    }

    /// Whether a worker that is connected may run the job.
    pub(crate) fn is_served(&self, entry: &JobEntry) -> bool {
        let class = self.class_ids.get(&ClassKey::of(&entry.spec, &entry.row)).and_then(|id| self.classes.get(id));
        let Some(lane) = class.and_then(|class| self.lanes.get(&class.lane)) else { return false };
        // A worker's own site, for what is pinned to it, is there while it fits.
        let staffed = |id: &SiteId| self.sites.get(id).is_some_and(|site| site.workers > 0 || site.kind.is_none());
        lane.key.sites.iter().any(staffed)
    }

    /// Jobs of the same requirements and namespace that go before this one, and all there are; each counted up to `most`.
    pub(crate) fn position(&self, entry: &JobEntry, most: usize) -> (usize, usize) {
        let class = self.class_ids.get(&ClassKey::of(&entry.spec, &entry.row)).and_then(|id| self.classes.get(id));
        let (Some(class), Some(&name)) = (class, self.name_ids.get(&entry.spec.namespace)) else { return (0, 0) };
        let own = level_of(&entry.spec);
        let all = |level| class.jobs.row(level, name).map_or(0, BTreeSet::len);
        let before = class.jobs.row(own, name).map_or(0, |row| row.range(..entry.arrival).take(most).count());
        let ahead = (0..own).map(all).sum::<usize>() + before;
        (ahead.min(most), (0..=9).map(all).sum::<usize>().min(most))
    }
}

/// The first of each group in an ordered row.
fn heads(jobs: impl Iterator<Item = (Level, NameId, Revision)>) -> Vec<(Level, NameId, Revision)> {
    let mut found: Vec<(Level, NameId, Revision)> = Vec::new();
    for (level, name, arrival) in jobs {
        if found.last().is_none_or(|last| (last.0, last.1) != (level, name)) {
            found.push((level, name, arrival));
        }
    }
    found
}

impl Lane {
    fn head(&self, level: Level, name: NameId) -> Option<Revision> {
        let range = (level, name, Revision(0), 0)..=(level, name, Revision(u64::MAX), u64::MAX);
        self.heads.range(range).next().map(|&(_, _, arrival, _)| arrival)
    }
}

impl Site {
    fn head(&self, level: Level, name: NameId) -> Option<Revision> {
        let range = (level, name, Revision(0), 0)..=(level, name, Revision(u64::MAX), u64::MAX);
        self.heads.range(range).next().map(|&(_, _, arrival, _)| arrival)
    }

    /// The worker with most free slots that has not declined.
    fn takes(&self, declined: &BTreeMap<WorkerId, BootId>) -> Option<(u32, &WorkerId)> {
        self.free
            .iter()
            .find(|(_, worker, boot)| declined.get(worker) != Some(boot))
            .map(|(Reverse(free), worker, _)| (*free, worker))
    }
}

/// For [`crate::Scheduler::check`].
impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.classes.values().map(|class| class.jobs.len()).sum()
    }

    pub(crate) fn holds(&self, entry: &JobEntry) -> bool {
        let class = self.class_ids.get(&ClassKey::of(&entry.spec, &entry.row)).and_then(|id| self.classes.get(id));
        class
            .zip(self.name_ids.get(&entry.spec.namespace))
            .and_then(|(class, name)| class.jobs.row(level_of(&entry.spec), *name))
            .is_some_and(|row| row.contains(&entry.arrival))
    }

    pub(crate) fn offered(&self, worker: &WorkerId) -> u32 {
        self.offers.get(worker).map_or(0, |offer| offer.free)
    }

    /// The tournament, computed again from the jobs alone, must be the one that was kept.
    pub(crate) fn check(&self, now: Time) -> Vec<String> {
        let mut broken = Vec::new();
        self.check_lanes(&mut broken);
        self.check_sites(now, &mut broken);
        broken
    }

    fn check_lanes(&self, broken: &mut Vec<String>) {
        let mut lanes: BTreeMap<LaneId, (usize, BTreeSet<_>)> = BTreeMap::new();
        for (id, class) in &self.classes {
            let lane = lanes.entry(class.lane).or_default();
            lane.0 += 1;
            lane.1.extend(class.jobs.heads().into_iter().map(|(l, n, a)| (l, n, a, *id)));
            if self.lanes.get(&class.lane).is_none_or(|lane| lane.key != self.lane_key(&class.key)) {
                broken.push(format!("class {id} is not in the lane of its workers"));
            }
            if class.jobs.is_empty() != self.idle_classes.contains(id) {
                broken.push(format!("class {id} is idle or is not, but not both"));
            }
        }
        let kept: BTreeMap<_, _> =
            self.lanes.iter().map(|(id, lane)| (*id, (lane.classes, lane.heads.clone()))).collect();
        if lanes != kept {
            broken.push("the lanes' heads are not those of their classes".into());
        }
    }

    fn check_sites(&self, now: Time, broken: &mut Vec<String>) {
        let mut sites: BTreeMap<SiteId, BTreeSet<_>> = BTreeMap::new();
        for (id, lane) in &self.lanes {
            let blocked = self.blocked(lane.key.concurrency.as_ref());
            for site in lane.key.sites.iter().filter(|_| !blocked) {
                sites
                    .entry(*site)
                    .or_default()
                    .extend(self.lane_heads(*id).into_iter().map(|(l, n, a)| (l, n, a, *id)));
            }
        }
        for (id, site) in &self.sites {
            if sites.remove(id).unwrap_or_default() != site.heads {
                broken.push(format!("the heads of site {id} are not those of its lanes"));
            }
            let groups: BTreeSet<_> = site.heads.iter().map(|head| (head.0, head.1)).collect();
            if !groups.iter().eq(site.groups.keys()) || site.turns.len() != groups.len() {
                broken.push(format!("the groups of site {id} are not those of its heads"));
            }
            for &(risen, pass, name, Reverse(level)) in &site.turns {
                let boost = site.groups.get(&(level, name)).map(|group| group.boost);
                let known = self.names.get(&name).is_some_and(|n| n.pass == pass && n.spots.contains(&(*id, level)));
                if boost != Some(level - risen) || !known {
                    broken.push(format!("a turn of site {id} is out of date"));
                }
            }
            let open = !site.free.is_empty() && !site.heads.is_empty();
            if open != self.open.contains(id) {
                broken.push(format!("site {id} is open or is not, but not both"));
            }
            // Nothing waits while somebody who may run it is free.
            if open && self.first_of(*id).is_some() {
                broken.push(format!("site {id} has free workers and waiting jobs at {now:?}"));
            }
        }
        if sites.values().any(|heads| !heads.is_empty()) {
            broken.push("a lane stands in a site that is gone".into());
        }
        let mut free: BTreeMap<&WorkerId, usize> = BTreeMap::new();
        for (_, worker, _) in self.sites.values().flat_map(|site| &site.free) {
            *free.entry(worker).or_default() += 1;
        }
        for (worker, offer) in &self.offers {
            if free.remove(worker) != Some(self.worker_sites(worker, offer.kind).count()) {
                broken.push(format!("{worker} is not offered where it should be"));
            }
        }
        if !free.is_empty() {
            broken.push("a worker is offered that is not there".into());
        }
    }
}
