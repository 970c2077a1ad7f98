//! A DNS server of one TXT record, as much of RFC 1035 as that takes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

/// Starts one on loopback; the record's text can be changed, and while it is empty there is none.
pub async fn start() -> (SocketAddr, Arc<Mutex<String>>) {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (address, record) = (socket.local_addr().unwrap(), Arc::new(Mutex::new(String::new())));
    let text = Arc::clone(&record);
    tokio::spawn(async move {
        let mut bytes = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut bytes).await {
            let text = text.lock().unwrap().clone();
            let _ = socket.send_to(&answer(&bytes[..length], &text), from).await;
        }
    });
    (address, record)
}

fn answer(asked: &[u8], text: &str) -> Vec<u8> {
    // The question ends after its name's zero, a type and a class.
    let end = 12 + asked[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
    let answers = u8::from(!text.is_empty());
    let mut bytes = asked[..2].to_vec();
    // A response, recursion available, no error; no such name where there is no record.
    bytes.extend([0x81, if answers == 1 { 0x80 } else { 0x83 }, 0, 1, 0, answers, 0, 0, 0, 0]);
    bytes.extend(&asked[12..end]);
    if answers == 1 {
        // The question's name, TXT, IN, no time to live, its length, and the text with its own.
        bytes.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 0, 0, text.len() as u8 + 1, text.len() as u8]);
        bytes.extend(text.as_bytes());
    }
    bytes
}
