//! One client's session at the gate: question and answer in turn, and what
//! goes wrong between them.

use super::gate::{Logged, SessionFacts, Shared};
use super::gate_acts::{Act, Cut, Passing};
use super::gate_client::{Client, welcome};
use super::gate_wire::{Frame, Refusal, Side};
use super::redshift_gate_login::open_session;
use super::redshift_gate_manners::Manners;
use bytes::Bytes;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::time::Instant;

/// What a refused statement becomes, so that the server refuses it itself and
/// its transaction is as aborted as the client is told.
const REFUSED: &[u8] = b"select the_gate_refuses_this_statement()\0";

/// A client and its session at the server.
pub(super) struct Talk<'a> {
    shared: &'a Shared,
    client: Side<Client>,
    server: Side<UnixStream>,
    transaction: Vec<String>,
    manners: Manners,
    facts: SessionFacts,
    /// Which session it is.
    number: usize,
    holes: watch::Receiver<usize>,
    is_in_hole: bool,
}

/// A session between the client and the server as they want it.
async fn pass_on_session(
    client: &mut Side<Client>,
    opening: &Bytes,
    server: &Path,
) -> io::Result<Side<UnixStream>> {
    let mut server = Side::new(UnixStream::connect(server).await?);
    server.stream.write_all(opening).await?;
    loop {
        let frame = server.frame().await?;
        client.send(&frame.bytes).await?;
        if frame.kind == b'Z' {
            return Ok(server);
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the warehouse's own log has the time of day"
)]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// Returns once session `number` is in a hole; `false` if it never will be.
async fn has_fallen(holes: &mut watch::Receiver<usize>, number: usize) -> bool {
    let fallen = holes.wait_for(|holes| number <= *holes).await;
    fallen.is_ok()
}

impl<'a> Talk<'a> {
    pub(super) async fn begin(client: TcpStream, shared: &'a Shared) -> io::Result<Self> {
        let tls = shared.tls.lock().unwrap().clone();
        let (mut client, opening) = welcome(client, tls).await?;
        let mut facts = SessionFacts::default();
        let server = match shared.redshift {
            Some(_) => open_session(&mut client, &opening, &shared.server, &mut facts).await?,
            None => pass_on_session(&mut client, &opening, &shared.server).await?,
        };
        facts.is_encrypted = client.stream.is_encrypted();
        let number = {
            let mut slowness = shared.slowness.lock().unwrap();
            slowness.sessions += 1;
            slowness.sessions
        };
        Ok(Self {
            shared,
            client,
            server,
            transaction: Vec::new(),
            manners: Manners::default(),
            facts,
            number,
            holes: shared.holes.subscribe(),
            is_in_hole: false,
        })
    }

    /// Question and answer in turn: the client waits for each answer's end
    /// before it asks again.
    pub(super) async fn relay(mut self) -> io::Result<()> {
        let mut refused = None;
        loop {
            if self.is_in_hole {
                // Neither side hears of it; the server keeps the session, and
                // what it has locked.
                return std::future::pending().await;
            }
            let idle = self.shared.slowness.lock().unwrap().idle;
            let frame = tokio::select! {
                frame = self.client.frame() => frame?,
                // The server speaks unasked: it ends the session.
                notice = self.server.frame() => {
                    self.client.send(&notice?.bytes).await?;
                    continue;
                }
                true = has_fallen(&mut self.holes, self.number) => {
                    self.fall();
                    continue;
                }
                () = tokio::time::sleep(idle.unwrap_or(Duration::MAX)) => {
                    return Err(self.client.stream.cut(Cut::Reset).await);
                }
            };
            match (frame.kind, &self.shared.redshift) {
                (b'Q', _) => self.statement(frame).await?,
                (b'S', _) => {
                    self.server.stream.write_all(&frame.bytes).await?;
                    let mut logged = self.logged(&Passing::default(), Act::Pass);
                    match refused.take() {
                        Some(refusal) => self.refuse(&refusal).await?,
                        None => self.answer(&mut logged).await?,
                    }
                }
                (_, Some(world)) => {
                    let (frame, refusal) = self.manners.extended(frame, world)?;
                    refused = refused.or(refusal);
                    self.server.stream.write_all(&frame.bytes).await?;
                }
                _ => self.server.stream.write_all(&frame.bytes).await?,
            }
        }
    }

    /// Every packet of the client's vanishes from here on.
    fn fall(&mut self) {
        self.client.stream.make_hole();
        self.is_in_hole = true;
    }

    fn logged(&self, passing: &Passing, act: Act) -> Logged {
        Logged {
            passing: passing.clone(),
            rows: 0,
            bytes: 0,
            act,
            is_done: false,
            label: String::new(),
            sql: String::new(),
            is_insert: false,
            began: SystemTime::UNIX_EPOCH,
            time: Duration::ZERO,
            slot_held: Duration::ZERO,
            session: SessionFacts {
                query_group: self.manners.query_group.clone(),
                ..self.facts.clone()
            },
        }
    }

    async fn statement(&mut self, frame: Frame) -> io::Result<()> {
        let (began, at) = (Instant::now(), wall_clock());
        let passing = self.passing(&frame);
        let act = (self.shared.rule.lock().unwrap())(&passing);
        let sql = String::from_utf8_lossy(frame.body());
        let sql = sql.trim_end_matches('\0').to_owned();
        // What it changes of the session holds for those behind it.
        let mut logged = self.logged(&passing, Act::Pass);
        let (frame, act) = self.judged(frame, act, &sql).await;
        let label = sql.split_once(" */").map(|(label, _)| label.to_owned());
        logged.label = label.unwrap_or_default();
        logged.began = at;
        self.shared
            .log
            .send_modify(|log| log.0.push(passing.clone()));
        let slowness = self.shared.slowness.lock().unwrap().clone();
        let command = sql.split_once("*/ ").map_or(&*sql, |(_, rest)| rest);
        let word = command.split_whitespace().next().unwrap_or("").to_owned();
        let (slot, act) = match slowness.queue {
            None => (None, act),
            Some(queue) => match queue.slot(command).await {
                Ok(slot) => (slot, act),
                Err(refusal) => (None, Act::Refuse(refusal)),
            },
        };
        logged.act = act.clone();
        logged.sql = sql;
        logged.is_insert = word == "insert";
        if logged.is_insert {
            tokio::time::sleep(slowness.insert).await;
        }
        let turn = match slowness.commit.filter(|_| passing.step == "commit") {
            Some(time) => {
                let turn = self.shared.commits.lock().await;
                tokio::time::sleep(time).await;
                Some(turn)
            }
            None => None,
        };
        let done = self.act(frame, act, &mut logged).await;
        drop((turn, slot));
        logged.time = began.elapsed();
        self.shared.log.send_modify(|log| log.1.push(logged));
        done
    }

    /// The statement in the server's words, or the refusal that Redshift has
    /// for it.
    async fn judged(&mut self, frame: Frame, act: Act, sql: &str) -> (Frame, Act) {
        let Some(redshift) = &self.shared.redshift else {
            return (frame, act);
        };
        if sql.to_lowercase().contains("sys_query_history") {
            let log = self.shared.log.borrow().1.clone();
            redshift.write_history(&log).await;
        }
        match self.manners.query(sql) {
            Ok(rewritten) => (rewritten, act),
            Err(refusal) => {
                let refused = (sql.to_owned(), refusal.clone());
                self.shared.refused.lock().unwrap().push(refused);
                (frame, Act::Refuse(refusal))
            }
        }
    }

    async fn act(&mut self, frame: Frame, act: Act, logged: &mut Logged) -> io::Result<()> {
        let (rows, bytes, how) = match act {
            Act::Pass => {
                self.server.stream.write_all(&frame.bytes).await?;
                return self.answer(logged).await;
            }
            Act::Delay(time) => {
                tokio::time::sleep(time).await;
                self.server.stream.write_all(&frame.bytes).await?;
                return self.answer(logged).await;
            }
            Act::Refuse(refusal) => {
                let refused = Frame::new(b'Q', REFUSED);
                self.server.stream.write_all(&refused.bytes).await?;
                return self.refuse(&refusal).await;
            }
            Act::CutBefore(how) => return Err(self.client.stream.cut(how).await),
            Act::CutAfter(how) => {
                self.is_done_at_server(&frame).await?;
                logged.is_done = true;
                return Err(self.client.stream.cut(how).await);
            }
            Act::Vanish => {
                self.fall();
                return Ok(());
            }
            Act::VanishDone => {
                self.fall();
                self.is_done_at_server(&frame).await?;
                logged.is_done = true;
                return Ok(());
            }
            Act::CutAfterRows(rows, how) => (rows, usize::MAX, how),
            Act::CutAfterBytes(bytes, how) => (usize::MAX, bytes, how),
        };
        self.server.stream.write_all(&frame.bytes).await?;
        self.answer_part(rows, bytes, logged).await?;
        Err(self.client.stream.cut(how).await)
    }

    /// Lets the server do it, and keeps its answer.
    async fn is_done_at_server(&mut self, frame: &Frame) -> io::Result<()> {
        self.server.stream.write_all(&frame.bytes).await?;
        while self.server.frame().await?.kind != b'Z' {}
        Ok(())
    }

    fn passing(&mut self, frame: &Frame) -> Passing {
        let text = String::from_utf8_lossy(frame.body());
        let comment = text.strip_prefix("/* campaignd ").unwrap_or("");
        let step = comment.split(' ').next().unwrap_or("").to_owned();
        let number = {
            let mut steps = self.shared.steps.lock().unwrap();
            steps.push(step.clone());
            steps.iter().filter(|earlier| **earlier == step).count()
        };
        if step == "begin" {
            self.transaction.clear();
        }
        let passing = Passing {
            step: step.clone(),
            number,
            transaction: self.transaction.clone(),
        };
        self.transaction.push(step);
        if passing.step == "commit" {
            self.transaction.clear();
        }
        passing
    }

    /// The server's next frame, as the client is to see it.
    async fn frame_for_client(&mut self) -> io::Result<Frame> {
        let frame = self.server.frame().await?;
        Ok(match &self.shared.redshift {
            Some(world) => self.manners.answer(frame, world),
            None => frame,
        })
    }

    /// Passes on the answer to its end.
    async fn answer(&mut self, logged: &mut Logged) -> io::Result<()> {
        let mut reaches_client = true;
        let mut first_row = None;
        loop {
            let frame = self.frame_for_client().await?;
            logged.rows += usize::from(frame.kind == b'D');
            logged.bytes += frame.bytes.len();
            // A client that has died meanwhile changes nothing for the
            // statement it sent.
            if reaches_client {
                reaches_client = self.client.send(&frame.bytes).await.is_ok();
            }
            match frame.kind {
                b'D' => {
                    let first = *first_row.get_or_insert_with(Instant::now);
                    logged.slot_held = first.elapsed();
                }
                b'C' => logged.is_done = true,
                b'Z' => return Ok(()),
                _ => {}
            }
        }
    }

    /// Passes on so many rows of the answer, or so many bytes of it; an
    /// answer that has fewer, up to its end, which the client is not told.
    async fn answer_part(
        &mut self,
        rows: usize,
        bytes: usize,
        logged: &mut Logged,
    ) -> io::Result<()> {
        while logged.rows < rows && logged.bytes < bytes {
            let frame = self.frame_for_client().await?;
            if frame.kind == b'Z' {
                return Ok(());
            }
            logged.rows += usize::from(frame.kind == b'D');
            let room = bytes.saturating_sub(logged.bytes).min(frame.bytes.len());
            logged.bytes += room;
            self.client.send(&frame.bytes[..room]).await?;
        }
        Ok(())
    }

    /// Waits for the server's own error and passes on another.
    async fn refuse(&mut self, refusal: &Refusal) -> io::Result<()> {
        loop {
            let frame = self.frame_for_client().await?;
            let frame = match frame.kind {
                b'E' => refusal.frame(),
                _ => frame,
            };
            self.client.send(&frame.bytes).await?;
            match frame.kind {
                b'E' if refusal.is_fatal => {
                    return Err(self.client.stream.cut(Cut::Reset).await);
                }
                b'Z' => return Ok(()),
                _ => {}
            }
        }
    }
}
