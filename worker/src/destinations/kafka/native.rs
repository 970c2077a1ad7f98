//! The calls to librdkafka itself, where the crate has none or a slower one. The only unsafe code of the destination.
//!
//! - [`Client`] dials nothing that its [`Watch`] does not allow: the crate's producers and consumers leave no place for
//!   librdkafka's connect callback.
//! - [`Topic::produce`] hands a record over with headers made in place: the crate's `OwnedHeaders` makes a C string
//!   for each name, and looks the topic up by name for each record.
//! - [`Client::serve`] waits for acknowledgements without spinning: the crate's `poll(1 ms)` asks the queue with a wait
//!   that it rounds down to 0, again and again, which was a quarter of a chunk's CPU time.
//! - [`Reader`] reads one partition without a group and says at which offset it ends; the crate keeps that offset
//!   to itself, and a group would need a right that nobody should have to grant.
//! - [`describe_topic`] and [`describe_cluster`] ask what we may do, which the crate's admin client cannot, and
//!   [`create_topic`] and [`describe_configs`] use the same connection and tell the broker's reason.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::bindings as sys;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::types::RDKafkaType;

use super::client::Watch;

/// How long a producer that is dropped waits for its records to be given back.
const PURGE: Duration = Duration::from_millis(500);

/// A client of a cluster: a producer, or a consumer without a group.
pub(super) struct Client {
    queue: NonNull<sys::rd_kafka_queue_t>,
    kind: RDKafkaType,
    client: rdkafka::client::Client<Watch>,
}

// SAFETY: librdkafka's handles may be used from any thread; `client` is Send and Sync itself.
unsafe impl Send for Client {}
// SAFETY: as above.
unsafe impl Sync for Client {}

impl Client {
    /// A producer, which dials in the background.
    ///
    /// # Errors
    /// What librdkafka has against the configuration.
    pub(super) fn producer(config: &ClientConfig, watch: Watch) -> KafkaResult<Self> {
        Self::new(config, watch, RDKafkaType::RD_KAFKA_PRODUCER, sys::RD_KAFKA_EVENT_DR | sys::RD_KAFKA_EVENT_ERROR)
    }

    /// A consumer.
    ///
    /// # Errors
    /// As [`Client::producer`].
    pub(super) fn consumer(config: &ClientConfig, watch: Watch) -> KafkaResult<Self> {
        Self::new(config, watch, RDKafkaType::RD_KAFKA_CONSUMER, sys::RD_KAFKA_EVENT_ERROR)
    }

    fn new(config: &ClientConfig, watch: Watch, kind: RDKafkaType, events: i32) -> KafkaResult<Self> {
        let native = config.create_native_config()?;
        // SAFETY: the configuration is ours until the client takes it. `dial` is given the configuration's opaque, which
        // the crate makes the client's context, a `Watch`: it outlives librdkafka's threads, for they end in the
        // destructor of a field before it.
        unsafe {
            sys::rd_kafka_conf_set_events(native.ptr(), events);
            sys::rd_kafka_conf_set_connect_cb(native.ptr(), Some(dial));
        }
        let client = rdkafka::client::Client::new(config, native, kind, watch)?;
        // SAFETY: the client lives; the handle is ours and given back in `drop`.
        let (queue, opaque) =
            unsafe { (sys::rd_kafka_queue_get_main(client.native_ptr()), sys::rd_kafka_opaque(client.native_ptr())) };
        debug_assert!(ptr::eq(opaque.cast::<Watch>(), Arc::as_ptr(client.context())), "`dial` is given something else");
        Ok(Self { queue: NonNull::new(queue).expect("librdkafka never returns a null queue"), kind, client })
    }

    /// Waits at most `wait` for something to come, then takes what is there: deliveries go to `take`, the rest to the
    /// client's [`Watch`].
    pub(super) fn serve(&self, wait: Duration, mut take: impl FnMut(Delivery)) {
        let mut wait = millis(wait);
        // SAFETY: the queue lives; each event is ours until the guard gives it back.
        while let Some(event) = NativeEvent::new(unsafe { sys::rd_kafka_queue_poll(self.queue.as_ptr(), wait) }) {
            wait = 0;
            match event.kind() {
                sys::RD_KAFKA_EVENT_DR => event.deliveries(&mut take),
                sys::RD_KAFKA_EVENT_LOG => {
                    let (facility, line) = event.log();
                    self.context().hear_log(&facility, &line);
                }
                sys::RD_KAFKA_EVENT_ERROR => self.context().hear_error(event.code(), &event.reason()),
                _ => {}
            }
        }
    }

    /// Takes the transactional id over; may be called again after a retriable failure.
    pub(super) fn init_transactions(&self, wait: Duration) -> Result<(), Failure> {
        // SAFETY: the client lives; so below.
        Failure::read(unsafe { sys::rd_kafka_init_transactions(self.native_ptr(), millis(wait)) })
    }

    pub(super) fn begin_transaction(&self) -> Result<(), Failure> {
        // SAFETY: as above.
        Failure::read(unsafe { sys::rd_kafka_begin_transaction(self.native_ptr()) })
    }

    /// Commits what is acknowledged already: nothing is served meanwhile.
    pub(super) fn commit_transaction(&self, wait: Duration) -> Result<(), Failure> {
        // SAFETY: as above.
        Failure::read(unsafe { sys::rd_kafka_commit_transaction(self.native_ptr(), millis(wait)) })
    }

    pub(super) fn abort_transaction(&self, wait: Duration) -> Result<(), Failure> {
        // SAFETY: as above.
        Failure::read(unsafe { sys::rd_kafka_abort_transaction(self.native_ptr(), millis(wait)) })
    }
}

impl Deref for Client {
    type Target = rdkafka::client::Client<Watch>;

    fn deref(&self) -> &Self::Target {
        &self.client
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.kind == RDKafkaType::RD_KAFKA_PRODUCER {
            let deadline = Instant::now() + PURGE;
            // SAFETY: the client lives. What is purged comes back as deliveries, which are served until none is left.
            unsafe {
                sys::rd_kafka_purge(self.native_ptr(), sys::RD_KAFKA_PURGE_F_QUEUE | sys::RD_KAFKA_PURGE_F_INFLIGHT);
                let left = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__TIMED_OUT;
                while sys::rd_kafka_flush(self.native_ptr(), 0) == left && Instant::now() < deadline {
                    self.serve(Duration::from_millis(20), |_| {});
                }
            }
        }
        // SAFETY: ours, given back once, while `client` still lives.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

/// Connects a socket for librdkafka as it would by itself, to an address that the client may dial.
///
/// # Safety
/// librdkafka's: `address` has `length` bytes of its family, `node` ends in NUL, `opaque` is the client's [`Watch`].
unsafe extern "C" fn dial(
    socket: c_int,
    address: *const libc::sockaddr,
    length: c_int,
    node: *const c_char,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: the caller's promise.
    let (watch, node, ip) = unsafe { (&*opaque.cast::<Watch>(), text(node), ip_of(address)) };
    if !ip.is_some_and(|ip| watch.may_dial(&node, ip)) {
        return libc::EACCES;
    }
    // SAFETY: the caller's promise; the socket is librdkafka's, and does not block.
    if unsafe { libc::connect(socket, address, length.unsigned_abs()) } == 0 {
        return 0;
    }
    match io::Error::last_os_error().raw_os_error() {
        Some(libc::EINPROGRESS) => 0,
        code => code.unwrap_or(libc::EIO),
    }
}

/// # Safety
/// `address` has the bytes of its family.
unsafe fn ip_of(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: the caller's promise; librdkafka aligns addresses for either family.
    unsafe {
        match c_int::from((*address).sa_family) {
            libc::AF_INET => {
                let address = address.cast::<libc::sockaddr_in>();
                Some(Ipv4Addr::from((*address).sin_addr.s_addr.to_ne_bytes()).into())
            }
            libc::AF_INET6 => Some(Ipv6Addr::from((*address.cast::<libc::sockaddr_in6>()).sin6_addr.s6_addr).into()),
            _ => None,
        }
    }
}

/// Why a transaction's call failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
pub(super) struct Failure {
    pub(super) code: RDKafkaErrorCode,
    text: String,
    /// The same call may be tried again.
    pub(super) is_retriable: bool,
    /// The transaction can only be aborted.
    pub(super) requires_abort: bool,
}

impl Failure {
    fn read(error: *mut sys::rd_kafka_error_t) -> Result<(), Self> {
        if error.is_null() {
            return Ok(());
        }
        // SAFETY: the error is ours: read, then given back once.
        unsafe {
            let failure = Self {
                code: sys::rd_kafka_error_code(error).into(),
                text: text(sys::rd_kafka_error_string(error)),
                is_retriable: sys::rd_kafka_error_is_retriable(error) != 0,
                requires_abort: sys::rd_kafka_error_txn_requires_abort(error) != 0,
            };
            sys::rd_kafka_error_destroy(error);
            Err(failure)
        }
    }
}

/// The headers of one record, until the record takes them.
pub(super) struct Headers(NonNull<sys::rd_kafka_headers_t>);

impl Headers {
    /// Room for `count` headers.
    pub(super) fn with_capacity(count: usize) -> Self {
        // SAFETY: makes a list of its own; librdkafka aborts the process rather than return null for want of memory.
        let list = unsafe { sys::rd_kafka_headers_new(count) };
        Self(NonNull::new(list).expect("librdkafka never returns a null list of headers"))
    }

    /// Adds a header; both texts are copied.
    pub(super) fn add(&mut self, name: &[u8], value: &[u8]) {
        // SAFETY: the list is ours; librdkafka copies `name` and `value`, each with its length, before it returns. The
        // one error, a list that a message owns already, cannot be: `produce` takes such a list away.
        unsafe {
            sys::rd_kafka_header_add(
                self.0.as_ptr(),
                name.as_ptr().cast::<c_char>(),
                name.len() as isize,
                value.as_ptr().cast::<c_void>(),
                value.len() as isize,
            );
        }
    }
}

impl Drop for Headers {
    fn drop(&mut self) {
        // SAFETY: whoever holds the value owns the list; `produce` forgets the value when a message took it.
        unsafe { sys::rd_kafka_headers_destroy(self.0.as_ptr()) }
    }
}

/// Where `murmur2_random` sends a key.
pub(super) fn partition(key: &[u8], partitions: i32) -> i32 {
    // SAFETY: the hash reads the key's bytes alone; topic and opaques are for other partitioners.
    unsafe {
        sys::rd_kafka_msg_partitioner_murmur2(
            ptr::null(),
            key.as_ptr().cast(),
            key.len(),
            partitions.max(1),
            ptr::null_mut(),
            ptr::null_mut(),
        )
    }
}

/// A topic, looked up once; keeps its producer alive.
pub(super) struct Topic {
    topic: NonNull<sys::rd_kafka_topic_t>,
    producer: Arc<Client>,
}

// SAFETY: librdkafka's handles may be used from any thread; `producer` is Send and Sync itself.
unsafe impl Send for Topic {}

impl Topic {
    /// Looks a topic up; none for a name that Kafka could not have.
    pub(super) fn new(producer: &Arc<Client>, name: &str) -> Option<Self> {
        let name = CString::new(name).ok()?;
        // SAFETY: the producer lives, the name ends in NUL and is copied, and a null configuration means the default.
        let topic = unsafe { sys::rd_kafka_topic_new(producer.native_ptr(), name.as_ptr(), ptr::null_mut()) };
        Some(Self { topic: NonNull::new(topic)?, producer: Arc::clone(producer) })
    }

    /// Queues one record. The key is copied, the value is lent. `headers` is taken when it is queued, and left for
    /// another try when not. `tag` comes back with the delivery.
    ///
    /// # Safety
    /// `value` stays where it is, unchanged, until the record's delivery has been served or the producer is gone.
    ///
    /// # Errors
    /// `QueueFull` when the queue must be served first; anything else is final for the record.
    pub(super) unsafe fn produce(
        &self,
        partition: i32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &mut Option<Headers>,
        tag: usize,
    ) -> Result<(), RDKafkaErrorCode> {
        use sys::rd_kafka_vtype_t as v;
        let (key, key_bytes) = parts(key);
        let (value, value_bytes) = parts(value);
        let list = headers.as_ref().map_or(ptr::null_mut(), |headers| headers.0.as_ptr());
        // SAFETY: the arguments are pairs of tag and value of exactly the types that `rd_kafka_vtype_t` documents, ended
        // by END. Keys are always copied before the call returns; the value is the caller's promise (neither F_COPY nor
        // F_FREE: librdkafka reads it and leaves it alone).
        // The list of headers becomes the message's if and only if the call succeeds.
        let code = unsafe {
            sys::rd_kafka_producev(
                self.producer.native_ptr(),
                v::RD_KAFKA_VTYPE_RKT,
                self.topic.as_ptr(),
                v::RD_KAFKA_VTYPE_PARTITION,
                partition,
                v::RD_KAFKA_VTYPE_MSGFLAGS,
                0i32,
                v::RD_KAFKA_VTYPE_VALUE,
                value,
                value_bytes,
                v::RD_KAFKA_VTYPE_KEY,
                key,
                key_bytes,
                v::RD_KAFKA_VTYPE_OPAQUE,
                tag as *mut c_void,
                v::RD_KAFKA_VTYPE_HEADERS,
                list,
                v::RD_KAFKA_VTYPE_END,
            )
        };
        match RDKafkaErrorCode::from(code) {
            RDKafkaErrorCode::NoError => {
                // The message owns the list now.
                std::mem::forget(headers.take());
                Ok(())
            }
            code => Err(code),
        }
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: ours from `rd_kafka_topic_new`, given back once, while `producer` still lives.
        unsafe { sys::rd_kafka_topic_destroy(self.topic.as_ptr()) }
    }
}

/// Pointer and length: null for none, and not null for empty, since a null value is a tombstone.
fn parts(bytes: Option<&[u8]>) -> (*mut c_void, usize) {
    bytes.map_or((ptr::null_mut(), 0), |bytes| (bytes.as_ptr().cast_mut().cast::<c_void>(), bytes.len()))
}

/// What became of one record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delivery {
    /// What [`Topic::produce`] was given.
    pub(super) tag: usize,
    pub(super) partition: i32,
    /// Below 0 when the broker had the record already and does not say where.
    pub(super) offset: i64,
    pub(super) result: Result<(), RDKafkaErrorCode>,
}

/// What reading a partition brings.
#[derive(Debug)]
pub(super) enum Event<'a> {
    /// A record that may be seen at the reader's isolation level.
    Record { key: Option<&'a [u8]>, value: Option<&'a [u8]>, offset: i64 },
    /// Nothing is left before this offset.
    End { offset: i64 },
    /// The broker refuses, or cannot be reached.
    Failed { code: RDKafkaErrorCode },
}

/// Reads one partition, without a group.
pub(super) struct Reader {
    topic: NonNull<sys::rd_kafka_topic_t>,
    queue: NonNull<sys::rd_kafka_queue_t>,
    partition: i32,
    consumer: Client,
}

impl Reader {
    /// Begins at `offset`, or at the partition's beginning.
    ///
    /// # Errors
    /// librdkafka's code when it refuses the partition.
    pub(super) fn start(
        consumer: Client,
        topic: &str,
        partition: i32,
        offset: Option<i64>,
    ) -> Result<Self, RDKafkaErrorCode> {
        let name = CString::new(topic).map_err(|_| RDKafkaErrorCode::InvalidTopic)?;
        let client = consumer.native_ptr();
        // SAFETY: the consumer lives; both handles are ours and are given back in `drop`.
        let (topic, queue) = unsafe {
            (sys::rd_kafka_topic_new(client, name.as_ptr(), ptr::null_mut()), sys::rd_kafka_queue_new(client))
        };
        let queue = NonNull::new(queue).expect("librdkafka never returns a null queue");
        let Some(topic) = NonNull::new(topic) else {
            // SAFETY: ours, and not used by anything yet.
            unsafe { sys::rd_kafka_queue_destroy(queue.as_ptr()) };
            return Err(RDKafkaErrorCode::InvalidTopic);
        };
        let reader = Self { topic, queue, partition, consumer };
        let offset = offset.unwrap_or(i64::from(sys::RD_KAFKA_OFFSET_BEGINNING));
        // SAFETY: both handles live, and the partition is started once.
        match unsafe { sys::rd_kafka_consume_start_queue(topic.as_ptr(), partition, offset, queue.as_ptr()) } {
            0 => Ok(reader),
            // SAFETY: reads this thread's last error.
            _ => Err(unsafe { sys::rd_kafka_last_error() }.into()),
        }
    }

    /// What the client heard about its connections.
    pub(super) fn watch(&self) -> &Watch {
        self.consumer.context()
    }

    /// Waits for one event and gives it to `take`; false when `wait` passed without one.
    pub(super) fn poll(&self, wait: Duration, take: impl FnOnce(Event<'_>)) -> bool {
        // Errors and log lines come by the client's main queue.
        self.consumer.serve(Duration::ZERO, |_| {});
        // SAFETY: the queue lives; the event is ours until the guard gives it back.
        let Some(event) = NativeEvent::new(unsafe { sys::rd_kafka_queue_poll(self.queue.as_ptr(), millis(wait)) })
        else {
            return false;
        };
        match event.kind() {
            sys::RD_KAFKA_EVENT_FETCH => {
                // SAFETY: a FETCH event holds one message, which lives as long as the event.
                if let Some(message) = unsafe { sys::rd_kafka_event_message_next(event.0.as_ptr()).as_ref() } {
                    // SAFETY: key and value have these lengths and live as long as the message.
                    let (key, value) =
                        unsafe { (bytes(message.key, message.key_len), bytes(message.payload, message.len)) };
                    take(Event::Record { key, value, offset: message.offset });
                }
            }
            sys::RD_KAFKA_EVENT_ERROR => match event.code() {
                RDKafkaErrorCode::PartitionEOF => take(Event::End { offset: event.offset() }),
                code => take(Event::Failed { code }),
            },
            _ => {}
        }
        true
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // SAFETY: stopped, then given back, each once, while `consumer` still lives; stopping what never started is
        // refused without harm.
        unsafe {
            sys::rd_kafka_consume_stop(self.topic.as_ptr(), self.partition);
            sys::rd_kafka_topic_destroy(self.topic.as_ptr());
            sys::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

/// # Safety
/// `data` is null or points to `length` bytes that live for `'a`.
unsafe fn bytes<'a>(data: *const c_void, length: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise.
    (!data.is_null()).then(|| unsafe { slice::from_raw_parts(data.cast::<u8>(), length) })
}

fn millis(wait: Duration) -> i32 {
    i32::try_from(wait.as_millis()).unwrap_or(i32::MAX)
}

/// An event of librdkafka's, given back when dropped.
struct NativeEvent(NonNull<sys::rd_kafka_event_t>);

impl NativeEvent {
    fn new(event: *mut sys::rd_kafka_event_t) -> Option<Self> {
        NonNull::new(event).map(Self)
    }

    fn kind(&self) -> i32 {
        // SAFETY: the event lives.
        unsafe { sys::rd_kafka_event_type(self.0.as_ptr()) }
    }

    fn code(&self) -> RDKafkaErrorCode {
        // SAFETY: the event lives.
        unsafe { sys::rd_kafka_event_error(self.0.as_ptr()) }.into()
    }

    /// What an error event says in words.
    fn reason(&self) -> String {
        // SAFETY: the event lives; the text is its own.
        unsafe { text(sys::rd_kafka_event_error_string(self.0.as_ptr())) }
    }

    /// A log line's facility and text.
    fn log(&self) -> (String, String) {
        let (mut facility, mut line, mut level) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the event lives; the texts are its own; both stay null if it is no log event.
        unsafe {
            sys::rd_kafka_event_log(self.0.as_ptr(), &mut facility, &mut line, &mut level);
            (text(facility), text(line))
        }
    }

    /// The records of a delivery event.
    fn deliveries(&self, take: &mut impl FnMut(Delivery)) {
        // SAFETY: the event lives, and each message with it; the call returns null after the last one.
        while let Some(message) = unsafe { sys::rd_kafka_event_message_next(self.0.as_ptr()).as_ref() } {
            let result = match message.err {
                sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
                code => Err(code.into()),
            };
            let tag = message._private as usize;
            take(Delivery { tag, partition: message.partition, offset: message.offset, result });
        }
    }

    /// Where the event's partition is; -1 if it names none.
    fn offset(&self) -> i64 {
        // SAFETY: the event lives; what it returns is ours, read once and given back.
        unsafe {
            let place = sys::rd_kafka_event_topic_partition(self.0.as_ptr());
            if place.is_null() {
                return -1;
            }
            let offset = (*place).offset;
            sys::rd_kafka_topic_partition_destroy(place);
            offset
        }
    }
}

impl Drop for NativeEvent {
    fn drop(&mut self) {
        // SAFETY: ours, given back once.
        unsafe { sys::rd_kafka_event_destroy(self.0.as_ptr()) }
    }
}

/// What an ACL may grant, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    Read,
    Write,
}

impl Right {
    fn read(operation: u32) -> Option<Self> {
        const READ: u32 = sys::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_READ as u32;
        const WRITE: u32 = sys::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_WRITE as u32;
        match operation {
            READ => Some(Self::Read),
            WRITE => Some(Self::Write),
            _ => None,
        }
    }

    /// Kafka's word for it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Read => "READ",
            Self::Write => "WRITE",
        }
    }
}

/// One partition, as its cluster sees it.
#[derive(Debug, Clone)]
pub(super) struct PartitionState {
    pub(super) has_leader: bool,
    pub(super) replicas: usize,
    pub(super) in_sync: usize,
}

/// One topic, as its cluster shows it to us.
#[derive(Debug, Clone)]
pub(super) struct TopicState {
    pub(super) partitions: Vec<PartitionState>,
    /// What we may do; none when the broker does not say (before Kafka 2.3).
    pub(super) rights: Option<Vec<Right>>,
}

/// One broker: its id and the address that clients are sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broker {
    pub(super) id: i32,
    pub(super) host: String,
    pub(super) port: u16,
}

/// The cluster, as it shows itself to us.
#[derive(Debug, Clone)]
pub(super) struct ClusterState {
    pub(super) id: String,
    pub(super) brokers: Vec<Broker>,
}

/// A request to the brokers and the queue its answer comes by.
struct Request {
    queue: NonNull<sys::rd_kafka_queue_t>,
    options: NonNull<sys::rd_kafka_AdminOptions_t>,
}

impl Request {
    /// # Safety
    /// `client` lives for as long as the request does.
    unsafe fn new(client: *mut sys::rd_kafka_t, kind: sys::rd_kafka_admin_op_t, wait: Duration) -> Self {
        // SAFETY: the client lives; both are ours and given back in `drop`. The setters can only refuse values out of
        // range or options foreign to the call, and then the defaults stay.
        unsafe {
            let options = sys::rd_kafka_AdminOptions_new(client, kind);
            let mut text = [0 as c_char; 256];
            sys::rd_kafka_AdminOptions_set_request_timeout(options, millis(wait), text.as_mut_ptr(), text.len());
            let error = sys::rd_kafka_AdminOptions_set_include_authorized_operations(options, 1);
            if !error.is_null() {
                sys::rd_kafka_error_destroy(error);
            }
            Self {
                queue: NonNull::new(sys::rd_kafka_queue_new(client)).expect("librdkafka never returns a null queue"),
                options: NonNull::new(options).expect("both kinds of request have options"),
            }
        }
    }

    /// Waits for the answer; `go_on` is asked every 20 ms and may end the wait.
    fn answer(&self, wait: Duration, mut go_on: impl FnMut() -> bool) -> Result<NativeEvent, RDKafkaErrorCode> {
        let deadline = Instant::now() + wait;
        loop {
            // SAFETY: the queue lives; the event is ours until the guard gives it back.
            let event = NativeEvent::new(unsafe { sys::rd_kafka_queue_poll(self.queue.as_ptr(), 20) });
            match event {
                Some(event) => match event.code() {
                    RDKafkaErrorCode::NoError => return Ok(event),
                    code => return Err(code),
                },
                None if go_on() && Instant::now() < deadline => {}
                None => return Err(RDKafkaErrorCode::OperationTimedOut),
            }
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        // SAFETY: both ours, given back once. An answer still to come is dropped with the queue.
        unsafe {
            sys::rd_kafka_AdminOptions_destroy(self.options.as_ptr());
            sys::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

/// Asks how a topic stands and what we may do with it; never creates it.
///
/// # Errors
/// The topic's own code (`UnknownTopicOrPartition`, `TopicAuthorizationFailed`), or the request's.
pub(super) fn describe_topic(
    client: &Client,
    topic: &str,
    wait: Duration,
    go_on: impl FnMut() -> bool,
) -> Result<TopicState, RDKafkaErrorCode> {
    let name = CString::new(topic).map_err(|_| RDKafkaErrorCode::InvalidTopic)?;
    let client = client.native_ptr();
    // SAFETY: the client is borrowed for the whole call; the names are copied by both calls that get them; the answer's
    // parts are read while `event` holds them.
    unsafe {
        let request = Request::new(client, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, wait);
        let names = sys::rd_kafka_TopicCollection_of_topic_names([name.as_ptr()].as_mut_ptr(), 1);
        sys::rd_kafka_DescribeTopics(client, names, request.options.as_ptr(), request.queue.as_ptr());
        sys::rd_kafka_TopicCollection_destroy(names);
        let event = request.answer(wait, go_on)?;
        let result = sys::rd_kafka_event_DescribeTopics_result(event.0.as_ptr());
        if result.is_null() {
            return Err(RDKafkaErrorCode::BadMessage);
        }
        let topics = list(|count| sys::rd_kafka_DescribeTopics_result_topics(result, count).cast_const());
        let Some(&topic) = topics.first() else { return Err(RDKafkaErrorCode::UnknownTopicOrPartition) };
        match RDKafkaErrorCode::from(sys::rd_kafka_error_code(sys::rd_kafka_TopicDescription_error(topic))) {
            RDKafkaErrorCode::NoError => {}
            code => return Err(code),
        }
        let partitions = list(|count| sys::rd_kafka_TopicDescription_partitions(topic, count).cast_const());
        Ok(TopicState {
            partitions: partitions.iter().map(|partition| partition_state(*partition)).collect(),
            rights: rights(|count| sys::rd_kafka_TopicDescription_authorized_operations(topic, count)),
        })
    }
}

/// # Safety
/// `partition` lives.
unsafe fn partition_state(partition: *const sys::rd_kafka_TopicPartitionInfo_t) -> PartitionState {
    // SAFETY: the caller's promise.
    unsafe {
        let leader = sys::rd_kafka_TopicPartitionInfo_leader(partition);
        let (mut replicas, mut in_sync) = (0, 0);
        sys::rd_kafka_TopicPartitionInfo_replicas(partition, &mut replicas);
        sys::rd_kafka_TopicPartitionInfo_isr(partition, &mut in_sync);
        PartitionState { has_leader: !leader.is_null() && sys::rd_kafka_Node_id(leader) >= 0, replicas, in_sync }
    }
}

/// Asks for the cluster's id and its brokers.
///
/// # Errors
/// librdkafka's code; `OperationTimedOut` also when `go_on` ended the wait.
pub(super) fn describe_cluster(
    client: &Client,
    wait: Duration,
    go_on: impl FnMut() -> bool,
) -> Result<ClusterState, RDKafkaErrorCode> {
    let client = client.native_ptr();
    // SAFETY: the client is borrowed for the whole call; the answer's parts are read while `event` holds them.
    unsafe {
        let request = Request::new(client, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECLUSTER, wait);
        sys::rd_kafka_DescribeCluster(client, request.options.as_ptr(), request.queue.as_ptr());
        let event = request.answer(wait, go_on)?;
        let result = sys::rd_kafka_event_DescribeCluster_result(event.0.as_ptr());
        if result.is_null() {
            return Err(RDKafkaErrorCode::BadMessage);
        }
        let nodes = list(|count| sys::rd_kafka_DescribeCluster_result_nodes(result, count).cast_const());
        let broker = |node: &*const sys::rd_kafka_Node_t| Broker {
            id: sys::rd_kafka_Node_id(*node),
            host: text(sys::rd_kafka_Node_host(*node)),
            port: sys::rd_kafka_Node_port(*node),
        };
        Ok(ClusterState {
            id: text(sys::rd_kafka_DescribeCluster_result_cluster_id(result)),
            brokers: nodes.iter().map(broker).collect(),
        })
    }
}

/// Creates a topic. `replication_factor` -1 is the cluster's default. With `validate_only`, only asks whether it could.
///
/// # Errors
/// The topic's code with the broker's reason, or the request's code.
pub(super) fn create_topic(
    client: &Client,
    topic: &NewTopic<'_>,
    wait: Duration,
) -> Result<(), (RDKafkaErrorCode, String)> {
    let plain = |code: RDKafkaErrorCode| (code, code.to_string());
    let name = CString::new(topic.name).map_err(|_| plain(RDKafkaErrorCode::InvalidTopic))?;
    let client = client.native_ptr();
    let mut reason = [0 as c_char; 512];
    // SAFETY: the client is borrowed for the whole call; texts are copied by the calls that get them; the new topic is
    // ours until it is given back; the answer's parts are read while `event` holds them.
    unsafe {
        let new = sys::rd_kafka_NewTopic_new(
            name.as_ptr(),
            topic.partitions,
            topic.replication_factor,
            reason.as_mut_ptr(),
            reason.len(),
        );
        let Some(new) = NonNull::new(new) else {
            return Err((RDKafkaErrorCode::InvalidArgument, text(reason.as_ptr())));
        };
        for (name, value) in topic.configs {
            if let (Ok(name), Ok(value)) = (CString::new(*name), CString::new(*value)) {
                sys::rd_kafka_NewTopic_set_config(new.as_ptr(), name.as_ptr(), value.as_ptr());
            }
        }
        let request = Request::new(client, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_CREATETOPICS, wait);
        let only = i32::from(topic.validate_only);
        sys::rd_kafka_AdminOptions_set_validate_only(request.options.as_ptr(), only, reason.as_mut_ptr(), reason.len());
        let mut topics = [new.as_ptr()];
        sys::rd_kafka_CreateTopics(client, topics.as_mut_ptr(), 1, request.options.as_ptr(), request.queue.as_ptr());
        sys::rd_kafka_NewTopic_destroy(new.as_ptr());
        let event = request.answer(wait, || true).map_err(plain)?;
        let result = sys::rd_kafka_event_CreateTopics_result(event.0.as_ptr());
        if result.is_null() {
            return Err(plain(RDKafkaErrorCode::BadMessage));
        }
        let results = list(|count| sys::rd_kafka_CreateTopics_result_topics(result, count).cast_const());
        let Some(&result) = results.first() else { return Err(plain(RDKafkaErrorCode::BadMessage)) };
        match RDKafkaErrorCode::from(sys::rd_kafka_topic_result_error(result)) {
            RDKafkaErrorCode::NoError => Ok(()),
            code => Err((code, text(sys::rd_kafka_topic_result_error_string(result)))),
        }
    }
}

/// A topic to be.
pub(super) struct NewTopic<'a> {
    pub(super) name: &'a str,
    pub(super) partitions: i32,
    pub(super) replication_factor: i32,
    pub(super) configs: &'a [(&'a str, &'a str)],
    pub(super) validate_only: bool,
}

/// Reads a topic's settings.
///
/// # Errors
/// The topic's code (`TopicAuthorizationFailed` without DESCRIBE_CONFIGS), or the request's.
pub(super) fn describe_configs(
    client: &Client,
    topic: &str,
    wait: Duration,
) -> Result<BTreeMap<String, String>, RDKafkaErrorCode> {
    let name = CString::new(topic).map_err(|_| RDKafkaErrorCode::InvalidTopic)?;
    let client = client.native_ptr();
    // SAFETY: as in `create_topic`; the resource is ours until it is given back.
    unsafe {
        let resource =
            sys::rd_kafka_ConfigResource_new(sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC, name.as_ptr());
        let request = Request::new(client, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS, wait);
        let mut resources = [resource];
        sys::rd_kafka_DescribeConfigs(
            client,
            resources.as_mut_ptr(),
            1,
            request.options.as_ptr(),
            request.queue.as_ptr(),
        );
        sys::rd_kafka_ConfigResource_destroy(resource);
        let event = request.answer(wait, || true)?;
        let result = sys::rd_kafka_event_DescribeConfigs_result(event.0.as_ptr());
        if result.is_null() {
            return Err(RDKafkaErrorCode::BadMessage);
        }
        let resources = list(|count| sys::rd_kafka_DescribeConfigs_result_resources(result, count).cast_const());
        let Some(&resource) = resources.first() else { return Err(RDKafkaErrorCode::BadMessage) };
        match RDKafkaErrorCode::from(sys::rd_kafka_ConfigResource_error(resource)) {
            RDKafkaErrorCode::NoError => {}
            code => return Err(code),
        }
        let entries = list(|count| sys::rd_kafka_ConfigResource_configs(resource, count).cast_const());
        let pair = |entry: &*const sys::rd_kafka_ConfigEntry_t| {
            (text(sys::rd_kafka_ConfigEntry_name(*entry)), text(sys::rd_kafka_ConfigEntry_value(*entry)))
        };
        Ok(entries.iter().map(pair).collect())
    }
}

/// # Safety
/// `call` returns a list and sets its length, or returns null; the list lives for `'a`.
unsafe fn list<'a, T>(call: impl FnOnce(*mut usize) -> *const T) -> &'a [T] {
    let mut count = 0;
    let first = call(&mut count);
    if first.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts(first, count) }
}

/// # Safety
/// As [`list`]. A null list means that the broker did not say.
unsafe fn rights(call: impl FnOnce(*mut usize) -> *const sys::rd_kafka_AclOperation_t) -> Option<Vec<Right>> {
    let mut count = 0;
    // Read as numbers: a later librdkafka may know operations that these bindings do not.
    let first = call(&mut count).cast::<u32>();
    // SAFETY: the caller's promise.
    (!first.is_null())
        .then(|| unsafe { slice::from_raw_parts(first, count) }.iter().filter_map(|o| Right::read(*o)).collect())
}

/// # Safety
/// `text` is null or ends in NUL.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
