//! Several generations at once, of which none can tell that there are others.

use crate::{Error, Event, Finish, Generation, Model, Request, Result};
use kiln_array::eval;
use std::collections::VecDeque;

/// Running generations: an iterator of what happens in each, with its request's number.
///
/// As many run at once as the device computes together; when one ends, the next request begins. An
/// error ends the one generation that it is of; one of a run that several share, such as no memory,
/// ends all of these.
pub struct Batch<'a> {
    model: &'a Model,
    waiting: VecDeque<(usize, Request)>,
    running: Vec<(usize, Generation<'a>)>,
    events: VecDeque<(usize, Result<Event>)>,
    finished: Vec<Option<Finish>>,
}

impl Model {
    /// Starts the generations of `requests`, of any lengths. Nothing is computed yet.
    ///
    /// Each gives what [`Model::generate`] gives of it alone: on the processor bit for bit. Prompts
    /// are read one after the other; then a token of each is computed in one run, which reads the
    /// weights once ([`Model::forward_each`]).
    ///
    /// # Errors
    /// Those of [`Model::generate`], of the first request that has one.
    pub fn generate_all(&self, requests: Vec<Request>) -> Result<Batch<'_>> {
        for request in &requests {
            self.checked(request)?;
        }
        Ok(Batch {
            model: self,
            finished: vec![None; requests.len()],
            waiting: requests.into_iter().enumerate().collect(),
            running: Vec::new(),
            events: VecDeque::new(),
        })
    }
}

impl Batch<'_> {
    /// Why generation `number` ended; `None` while it has not, and where it failed.
    pub fn finish(&self, number: usize) -> Option<Finish> {
        self.finished.get(number).copied().flatten()
    }

    /// Begins requests while there is room.
    fn begin(&mut self) {
        while self.running.len() < self.model.device().together() {
            let Some((number, request)) = self.waiting.pop_front() else {
                return;
            };
            match self.model.generate(request) {
                Ok(generation) => self.running.push((number, generation)),
                Err(error) => self.events.push_back((number, Err(error))),
            }
        }
    }

    /// One event of each running generation.
    fn step(&mut self) {
        let (events, finished) = (&mut self.events, &mut self.finished);
        self.running.retain_mut(|(number, generation)| {
            let event = generation.step();
            let goes_on = event.is_ok() && generation.finish().is_none();
            finished[*number] = generation.finish();
            events.push_back((*number, event));
            goes_on
        });
    }

    /// Logits for each generation that wants some, all in one run.
    fn compute(&mut self) -> Result<()> {
        let mut wanting: Vec<_> = self.running.iter_mut().map(|(_, g)| g).collect();
        wanting.retain(|generation| generation.wanted().is_some());
        if wanting.is_empty() {
            return Ok(());
        }
        let ids: Vec<u32> = wanting.iter().filter_map(|g| g.wanted()).collect();
        let mut caches: Vec<_> = wanting.iter_mut().map(|g| g.cache_mut()).collect();
        let logits = self.model.forward_each(&ids, &mut caches)?;
        for (generation, logits) in wanting.iter_mut().zip(logits) {
            generation.give(logits)?;
        }
        let pending: Vec<_> = wanting.iter().flat_map(|g| g.pending()).collect();
        Ok(eval(&pending)?)
    }

    /// The same error for all that run.
    fn fail(&mut self, error: &Error) {
        for (number, _) in self.running.drain(..) {
            let error = match &error {
                Error::Array(error) => Error::Array(error.clone()),
                other => Error::Request(other.to_string()),
            };
            self.events.push_back((number, Err(error)));
        }
    }
}

impl Iterator for Batch<'_> {
    type Item = (usize, Result<Event>);

    fn next(&mut self) -> Option<(usize, Result<Event>)> {
        while self.events.is_empty() {
            self.begin();
            if self.running.is_empty() && self.events.is_empty() {
                return None;
            }
            if let Err(error) = self.compute() {
                self.fail(&error);
            }
            self.step();
        }
        self.events.pop_front()
    }
}
