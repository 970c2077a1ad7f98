//! The queue: apalis over a back end of our own that claims rows by lease.
//!
//! ~~~text
//! claimer ──claims exactly the free slots──► channel ──► apalis worker ──► handler
//!    ▲ woken by an event, or by the timer                                     │
//! keeper ──every third of a lease: extends, cancels, reaps──► Held ◄──────────┘
//! ~~~
//!
//! Claimer and keeper are tasks of their own: a long job, or a worker that is draining, keeps its
//! lease. The one file here that names apalis.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use apalis_core::backend::finalize::Ephemeral;
use apalis_core::backend::{Backend, BackendConfig};
use apalis_core::layers::Identity;
use apalis_core::task::Task;
use apalis_core::task::builder::TaskBuilder;
use apalis_core::worker::context::WorkerContext;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::error::Result;
use crate::events::{Events, Subject};

/// A table of work that can be claimed by lease.
pub trait Queue: Clone + Send + Sync + 'static {
    /// What a claim yields.
    type Job: Clone + fmt::Debug + Send + Sync + 'static;
    /// The queue's word in logs.
    const NAME: &'static str;
    /// The events that announce new work.
    const SUBJECT: Subject;

    /// The row and the epoch of a job.
    fn hold(job: &Self::Job) -> (Uuid, i64);
    /// Claims at most `slots` jobs.
    fn claim(&self, slots: usize) -> impl Future<Output = Result<Vec<Self::Job>>> + Send;
    /// Extends leases; of each still held, whether a person asked to cancel.
    fn extend(&self, ids: &[Uuid], epochs: &[i64]) -> impl Future<Output = Result<Vec<(Uuid, bool)>>> + Send;
    /// Takes jobs away from workers whose lease ran out.
    fn reap(&self) -> impl Future<Output = Result<()>> + Send;
    /// Gives back jobs that were claimed and not begun.
    fn give_back(&self, ids: &[Uuid], epochs: &[i64]) -> impl Future<Output = Result<()>> + Send;
}

/// Why a job is asked to stop; each is a token that stays cancelled.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// A person asked to cancel it.
    pub cancel: CancellationToken,
    /// The worker is stopping: lay the job down at the next good place.
    pub drain: CancellationToken,
    /// The lease is gone: write nothing more.
    pub lost: CancellationToken,
}

/// A claimed job, with the slot it takes up.
#[derive(Debug, Clone)]
pub struct Held<J> {
    /// The job.
    pub job: J,
    /// Why to stop.
    pub stop: Stop,
    #[expect(dead_code, reason = "held for its drop, which frees the slot")]
    slot: Arc<Slot>,
}

#[derive(Debug)]
struct Slot {
    id: Uuid,
    live: Live,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

type Live = Arc<Mutex<HashMap<Uuid, (i64, Stop)>>>;

/// How a worker takes work.
#[derive(Debug, Clone, Copy)]
pub struct QueueOptions {
    /// Jobs at once.
    pub slots: usize,
    /// How long a claim holds without being extended.
    pub lease: Duration,
    /// How often to look for work that no event announced.
    pub poll: Duration,
}

/// apalis' back end over a [`Queue`].
pub struct LeaseBackend<Q: Queue> {
    queue: Q,
    jobs: mpsc::Receiver<Held<Q::Job>>,
    stop: CancellationToken,
    claimer: Option<JoinHandle<()>>,
    closing: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<Q: Queue> LeaseBackend<Q> {
    /// Starts claimer and keeper. Claiming ends when `drain` is cancelled; the keeper lives as long as any job.
    #[must_use]
    pub fn start(queue: Q, options: QueueOptions, events: &Events, drain: CancellationToken) -> Self {
        let (sender, jobs) = mpsc::channel(options.slots.max(1));
        let live = Live::default();
        let slots = Arc::new(Semaphore::new(options.slots.max(1)));
        let stop = drain.child_token();
        tokio::spawn(keep(queue.clone(), options, live.clone(), slots.clone(), stop.clone()));
        let claimer = Claimer { queue: queue.clone(), options, live, slots, drain, stop: stop.clone(), jobs: sender };
        let claimer = Some(tokio::spawn(claimer.run(events.clone())));
        Self { queue, jobs, stop, claimer, closing: None }
    }
}

struct Claimer<Q: Queue> {
    queue: Q,
    options: QueueOptions,
    live: Live,
    slots: Arc<Semaphore>,
    drain: CancellationToken,
    stop: CancellationToken,
    jobs: mpsc::Sender<Held<Q::Job>>,
}

impl<Q: Queue> Claimer<Q> {
    async fn run(self, events: Events) {
        let mut changes = events.subscribe();
        while let Some(permits) = self.free_slots().await {
            let claimed = self.queue.claim(permits.len()).await.unwrap_or_else(|error| {
                tracing::warn!(queue = Q::NAME, error = %error.chain(), "cannot claim work");
                Vec::new()
            });
            // Fewer than asked is normal when workers race; only an empty claim is a reason to wait.
            let idle = claimed.is_empty();
            self.hand_over(claimed, permits).await;
            if idle {
                self.wait(&mut changes).await;
            }
        }
    }

    /// All slots that are free, at least one; none when the worker stops.
    async fn free_slots(&self) -> Option<Vec<OwnedSemaphorePermit>> {
        let first = tokio::select! {
            () = self.stop.cancelled() => return None,
            permit = self.slots.clone().acquire_owned() => permit.ok()?,
        };
        let mut permits = vec![first];
        while let Ok(permit) = self.slots.clone().try_acquire_owned() {
            permits.push(permit);
        }
        Some(permits)
    }

    async fn hand_over(&self, claimed: Vec<Q::Job>, permits: Vec<OwnedSemaphorePermit>) {
        for (job, permit) in claimed.into_iter().zip(permits) {
            let (id, epoch) = Q::hold(&job);
            let stop = Stop { drain: self.drain.clone(), ..Stop::default() };
            self.live.lock().unwrap_or_else(PoisonError::into_inner).insert(id, (epoch, stop.clone()));
            let slot = Arc::new(Slot { id, live: self.live.clone(), _permit: permit });
            if self.jobs.send(Held { job, stop, slot }).await.is_err() {
                give_back(&self.queue, &[(id, epoch)]).await;
            }
        }
    }

    async fn wait(&self, changes: &mut tokio::sync::broadcast::Receiver<crate::events::Event>) {
        let announced = async {
            loop {
                match changes.recv().await {
                    Ok(event) if event.subject == Q::SUBJECT || event.subject == Subject::Anything => break,
                    Ok(_) => {}
                    Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => break,
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = announced => {}
            () = tokio::time::sleep(self.options.poll) => {}
        }
    }
}

/// Extends the leases of live jobs, tells them to cancel, and takes over the jobs of the dead.
async fn keep<Q: Queue>(queue: Q, options: QueueOptions, live: Live, slots: Arc<Semaphore>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(options.lease / 3);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut extended_at = tokio::time::Instant::now();
    loop {
        tick.tick().await;
        let held: Vec<_> = {
            let live = live.lock().unwrap_or_else(PoisonError::into_inner);
            live.iter().map(|(id, (epoch, stop))| (*id, *epoch, stop.clone())).collect()
        };
        if held.is_empty() && stop.is_cancelled() && slots.available_permits() == options.slots.max(1) {
            return;
        }
        if held.is_empty() {
            extended_at = tokio::time::Instant::now();
        } else {
            extended_at = extend(&queue, options, held, extended_at).await;
        }
        if let Err(error) = queue.reap().await {
            tracing::warn!(queue = Q::NAME, error = %error.chain(), "cannot look for lost work");
        }
    }
}

async fn extend<Q: Queue>(
    queue: &Q,
    options: QueueOptions,
    held: Vec<(Uuid, i64, Stop)>,
    extended_at: tokio::time::Instant,
) -> tokio::time::Instant {
    let now = tokio::time::Instant::now();
    let (ids, epochs): (Vec<_>, Vec<_>) = held.iter().map(|(id, epoch, _)| (*id, *epoch)).unzip();
    match queue.extend(&ids, &epochs).await {
        Ok(kept) => {
            let kept: HashMap<_, _> = kept.into_iter().collect();
            for (id, _, stop) in held {
                match kept.get(&id) {
                    Some(true) => stop.cancel.cancel(),
                    Some(false) => {}
                    None => stop.lost.cancel(),
                }
            }
            now
        }
        Err(error) => {
            tracing::warn!(queue = Q::NAME, error = %error.chain(), "cannot extend leases");
            // Past the lease nobody may believe to hold it, even when the database cannot be asked.
            if extended_at.elapsed() > options.lease {
                held.iter().for_each(|(_, _, stop)| stop.lost.cancel());
            }
            extended_at
        }
    }
}

async fn give_back<Q: Queue>(queue: &Q, held: &[(Uuid, i64)]) {
    let (ids, epochs): (Vec<_>, Vec<_>) = held.iter().copied().unzip();
    if ids.is_empty() {
        return;
    }
    if let Err(error) = queue.give_back(&ids, &epochs).await {
        tracing::warn!(queue = Q::NAME, error = %error.chain(), "cannot give work back; its lease will run out");
    }
}

impl<Q: Queue> Backend for LeaseBackend<Q> {
    type Task = Task<Held<Q::Job>>;
    type Error = std::io::Error;

    fn poll_ready(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        worker: &WorkerContext,
    ) -> Poll<Option<Result<Self::Task, Self::Error>>> {
        if worker.is_shutting_down() {
            self.stop.cancel();
        }
        self.jobs.poll_recv(cx).map(|job| job.map(|job| Ok(TaskBuilder::new(job).build())))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Self::Error>> {
        self.stop.cancel();
        let (jobs, queue, claimer) = (&mut self.jobs, &self.queue, &mut self.claimer);
        let closing = self.closing.get_or_insert_with(|| {
            // First what waits in the channel, then the claimer: a claim in flight gives its own rows back.
            jobs.close();
            let mut held = Vec::new();
            while let Ok(job) = jobs.try_recv() {
                held.push(Q::hold(&job.job));
            }
            let (queue, claimer) = (queue.clone(), claimer.take());
            Box::pin(async move {
                give_back(&queue, &held).await;
                if let Some(claimer) = claimer {
                    // It ended, by itself or by a panic that the log has.
                    let _ = claimer.await;
                }
            })
        });
        closing.as_mut().poll(cx).map(Ok)
    }
}

impl<Q: Queue> BackendConfig for LeaseBackend<Q> {
    type Args = Held<Q::Job>;
    type Id = u64;
    type Kind = Ephemeral;
    type Config = ();
    type Layer = Identity;

    fn config(&self) -> &() {
        &()
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> Identity {
        Identity::new()
    }
}
