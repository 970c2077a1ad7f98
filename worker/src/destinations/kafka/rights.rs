//! What the login may do with topics, asked of the brokers: DescribeTopics with authorized operations (KIP-430).

use std::ffi::CString;
use std::ptr;

use freshet_core::error::{Code, Error, Result};
use rdkafka::bindings as sys;
use rdkafka::client::Client;
use rdkafka::error::RDKafkaErrorCode;

use super::client::{ASK_TIMEOUT, Listening, named_code};

/// An operation on a topic that may need granting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Read,
    Write,
    Describe,
    DescribeConfigs,
}

impl Operation {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Read => "READ",
            Self::Write => "WRITE",
            Self::Describe => "DESCRIBE",
            Self::DescribeConfigs => "DESCRIBE_CONFIGS",
        }
    }

    fn of(native: sys::rd_kafka_AclOperation_t) -> Option<Self> {
        match native {
            sys::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_READ => Some(Self::Read),
            sys::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_WRITE => Some(Self::Write),
            sys::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_DESCRIBE => Some(Self::Describe),
            sys::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS => Some(Self::DescribeConfigs),
            _ => None,
        }
    }
}

/// Frees a native object when it goes out of scope.
struct Guard<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Guard<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the pointer is ours, is of the kind that the function frees, and is freed once.
            unsafe { (self.1)(self.0) }
        }
    }
}

/// What the login may do with a topic.
///
/// # Errors
/// `kafka.topic_missing`, `kafka.acl_missing` when it may not even see the topic, `kafka.unreachable` and kin.
pub(super) fn of_topic(client: &Client<Listening>, topic: &str) -> Result<Vec<Operation>> {
    let name = CString::new(topic).map_err(|error| Error::new(Code::Internal, "a topic's name").caused_by(error))?;
    let mut names = [name.as_ptr()];
    let rk = client.native_ptr();
    // SAFETY: the client outlives the call; each object made here is freed by its guard after its last use; the
    // result and everything read of it belong to the event and are copied before the event is freed.
    unsafe {
        let topics = Guard(
            sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1),
            sys::rd_kafka_TopicCollection_destroy,
        );
        let options = Guard(
            sys::rd_kafka_AdminOptions_new(rk, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS),
            sys::rd_kafka_AdminOptions_destroy,
        );
        let refused = sys::rd_kafka_AdminOptions_set_include_authorized_operations(options.0, 1);
        if !refused.is_null() {
            sys::rd_kafka_error_destroy(refused);
        }
        let queue = Guard(sys::rd_kafka_queue_new(rk), sys::rd_kafka_queue_destroy);
        sys::rd_kafka_DescribeTopics(rk, topics.0, options.0, queue.0);
        let event =
            Guard(sys::rd_kafka_queue_poll(queue.0, ASK_TIMEOUT.as_millis() as i32), sys::rd_kafka_event_destroy);
        if event.0.is_null() {
            return Err(Error::new(Code::KafkaTimeout, format!("rights on topic `{topic}`: no answer within 10 s")));
        }
        refuse(sys::rd_kafka_event_error(event.0).into(), client, topic)?;
        let result = sys::rd_kafka_event_DescribeTopics_result(event.0);
        if result.is_null() {
            return Err(Error::new(Code::KafkaBroker, format!("rights on topic `{topic}`: an unexpected answer")));
        }
        let mut count = 0;
        let found = sys::rd_kafka_DescribeTopics_result_topics(result, ptr::from_mut(&mut count));
        if count != 1 {
            return Err(Error::new(Code::KafkaTopicMissing, format!("topic `{topic}` is not there")));
        }
        let described = *found;
        refuse(sys::rd_kafka_error_code(sys::rd_kafka_TopicDescription_error(described)).into(), client, topic)?;
        let mut count = 0;
        let operations = sys::rd_kafka_TopicDescription_authorized_operations(described, ptr::from_mut(&mut count));
        if operations.is_null() {
            return Ok(Vec::new());
        }
        Ok(std::slice::from_raw_parts(operations, count).iter().filter_map(|native| Operation::of(*native)).collect())
    }
}

fn refuse(code: RDKafkaErrorCode, client: &Client<Listening>, topic: &str) -> Result<()> {
    if code == RDKafkaErrorCode::NoError {
        return Ok(());
    }
    let named = named_code(code, &client.context().0);
    let told = match named {
        Code::KafkaAcl => format!("DESCRIBE is not granted on topic `{topic}`"),
        Code::KafkaTopicMissing => format!("topic `{topic}` is not there"),
        _ => format!("rights on topic `{topic}` cannot be read"),
    };
    Err(Error::new(named, told))
}
