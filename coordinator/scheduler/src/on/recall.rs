use crate::Scheduler;
use crate::ledger::JobEntry;

impl Scheduler {
    /// Takes back a job that is over and had been dropped from memory. One that is there already is newer and stays; one that
    /// is not over cannot have been dropped; one whose deletion is not durable yet is deleted all the same.
    pub(crate) fn on_recall(&mut self, entry: JobEntry) {
        if self.deleted.contains(&entry.spec.job_id) {
            return;
        }
        if entry.row.phase.state().is_terminal() && self.ledger.job(&entry.spec.job_id).is_none() {
            let job_id = entry.spec.job_id.clone();
            self.ledger.insert(entry);
            self.index(&job_id);
        }
    }
}
