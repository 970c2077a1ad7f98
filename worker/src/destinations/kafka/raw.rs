//! Handing records to librdkafka: `rd_kafka_produceva` with the topic's handle and borrowed headers.
//!
//! The safe wrapper makes a C string of the topic and of each header's name for every record; with four
//! headers a record that is five allocations more than librdkafka's own. Everything unsafe of the
//! delivery path is here and in `rights`.

use std::ffi::{CString, c_void};
use std::ptr;
use std::time::Duration;

use freshet_core::connector::{Chunk, Header, Message, Target};
use freshet_core::error::{Code, Error, Result};
use rdkafka::bindings as sys;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};

/// Names of the headers that every record carries.
const FRESHET_ID: &std::ffi::CStr = c"freshet-id";
const FRESHET_OP: &std::ffi::CStr = c"freshet-op";

/// A topic's handle in one client; given back when dropped, which must be before the client goes.
pub struct Topic(*mut sys::rd_kafka_topic_t);

// SAFETY: librdkafka's handles may be used from any thread.
unsafe impl Send for Topic {}

impl Topic {
    /// Opens a handle.
    ///
    /// # Errors
    /// [`Code::Internal`] for a name with a zero byte, which our rules exclude.
    pub fn open<C: ProducerContext>(producer: &BaseProducer<C>, name: &str) -> Result<Self> {
        let name = CString::new(name).map_err(|error| Error::new(Code::Internal, "a topic's name").caused_by(error))?;
        // SAFETY: the client is alive, the name is a C string; a null configuration means the client's own.
        let topic = unsafe { sys::rd_kafka_topic_new(producer.client().native_ptr(), name.as_ptr(), ptr::null_mut()) };
        if topic.is_null() {
            Err(Error::new(Code::Internal, "a topic's handle cannot be made"))
        } else {
            Ok(Self(topic))
        }
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: the handle is ours and is given back once.
        unsafe { sys::rd_kafka_topic_destroy(self.0) }
    }
}

/// A record to be handed over; everything borrowed, librdkafka copies it.
pub struct Record<'a> {
    /// Its topic.
    pub topic: &'a Topic,
    /// Its partition; none for the key's.
    pub partition: Option<i32>,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Comes back with its delivery report.
    pub opaque: usize,
}

/// Headers that are the same for all records of a run, their names ready for C.
pub struct Headers(Vec<(CString, Vec<u8>)>);

impl Headers {
    /// Makes them ready.
    #[must_use]
    pub fn new(headers: &[Header]) -> Self {
        let ready = |header: &Header| Some((CString::new(header.name.as_str()).ok()?, header.value.clone()));
        Self(headers.iter().filter_map(ready).collect())
    }
}

/// Hands records over; keeps its array of arguments between them.
#[derive(Default)]
pub struct Sender {
    arguments: Vec<sys::rd_kafka_vu_t>,
}

// SAFETY: between calls the array is empty: it holds no pointer.
unsafe impl Send for Sender {}

impl Sender {
    /// Hands over one message of a chunk, waiting while librdkafka's queue is full.
    ///
    /// # Errors
    /// librdkafka's word for anything but a full queue.
    pub fn send_message<C: ProducerContext>(
        &mut self,
        producer: &BaseProducer<C>,
        record: &Record<'_>,
        chunk: &Chunk,
        message: &Message,
        common: &Headers,
    ) -> Result<(), RDKafkaErrorCode> {
        self.begin(record);
        self.header(FRESHET_ID, message.id.of(&chunk.buffer));
        self.header(FRESHET_OP, message.op.as_bytes());
        for (name, value) in &common.0 {
            self.header(name, value);
        }
        let extra = message.extra.and_then(|place| chunk.extra_headers.get(place as usize));
        let extra = Headers::new(extra.map_or(&[], Vec::as_slice));
        for (name, value) in &extra.0 {
            self.header(name, value);
        }
        self.hand_over(producer)
    }

    /// Hands over a record without headers, waiting while librdkafka's queue is full.
    ///
    /// # Errors
    /// librdkafka's word for anything but a full queue.
    pub fn send<C: ProducerContext>(
        &mut self,
        producer: &BaseProducer<C>,
        record: &Record<'_>,
    ) -> Result<(), RDKafkaErrorCode> {
        self.begin(record);
        self.hand_over(producer)
    }

    fn begin(&mut self, record: &Record<'_>) {
        self.arguments.clear();
        self.add(sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_RKT, |u| u.rkt = record.topic.0);
        self.add(sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_MSGFLAGS, |u| u.i = sys::RD_KAFKA_MSG_F_COPY);
        self.add(sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_OPAQUE, |u| u.ptr = record.opaque as *mut c_void);
        if let Some(partition) = record.partition {
            self.add(sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_PARTITION, |u| u.i32_ = partition);
        }
        self.memory(sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_KEY, record.key);
        self.memory(sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_VALUE, record.value);
    }

    fn memory(&mut self, kind: sys::rd_kafka_vtype_t, bytes: Option<&[u8]>) {
        // A null pointer is no key, or a tombstone; an empty slice has a pointer and is an empty text.
        let (start, size) = bytes.map_or((ptr::null(), 0), |bytes| (bytes.as_ptr(), bytes.len()));
        self.add(kind, |u| {
            u.mem = sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 { ptr: start.cast_mut().cast(), size };
        });
    }

    fn header(&mut self, name: &std::ffi::CStr, value: &[u8]) {
        let (name, val, size) = (name.as_ptr(), value.as_ptr().cast(), value.len() as isize);
        self.add(sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_HEADER, |u| {
            u.header = sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_2 { name, val, size };
        });
    }

    fn add(&mut self, vtype: sys::rd_kafka_vtype_t, set: impl FnOnce(&mut sys::rd_kafka_vu_s__bindgen_ty_1)) {
        let mut argument = sys::rd_kafka_vu_t { vtype, u: sys::rd_kafka_vu_s__bindgen_ty_1 { _pad: [0; 64] } };
        set(&mut argument.u);
        self.arguments.push(argument);
    }

    fn hand_over<C: ProducerContext>(&mut self, producer: &BaseProducer<C>) -> Result<(), RDKafkaErrorCode> {
        loop {
            // SAFETY: client and topic are alive; every argument's kind and member of the union go together; all
            // memory pointed to lives until the call returns, and with F_COPY librdkafka copies it before that.
            let code = unsafe {
                let error = sys::rd_kafka_produceva(
                    producer.client().native_ptr(),
                    self.arguments.as_ptr(),
                    self.arguments.len(),
                );
                let code = sys::rd_kafka_error_code(error);
                if !error.is_null() {
                    sys::rd_kafka_error_destroy(error);
                }
                RDKafkaErrorCode::from(code)
            };
            match code {
                RDKafkaErrorCode::NoError => {
                    self.arguments.clear();
                    return Ok(());
                }
                // Back-pressure, not an error: let delivery reports free the queue.
                RDKafkaErrorCode::QueueFull => producer.poll(Duration::from_millis(5)),
                code => {
                    self.arguments.clear();
                    return Err(code);
                }
            }
        }
    }
}

/// The opaque of a target; the progress record has its own.
#[must_use]
pub fn opaque(target: Target) -> usize {
    match target {
        Target::Data => 0,
        Target::DeadLetter => 1,
    }
}

/// The opaque of the progress record.
pub const PROGRESS: usize = 2;
