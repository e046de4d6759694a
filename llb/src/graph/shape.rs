//! The edges of a graph, and an order in which inputs come before their users.

/// The users of each vertex.
#[derive(Debug, Default)]
pub(super) struct Shape {
    edges: Vec<Vec<Edge>>,
}

/// An edge from a vertex to one that reads it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edge {
    /// The number of the vertex that reads.
    pub(super) user: usize,
    /// The output that it reads.
    pub(super) output: u32,
}

/// A vertex that depends on its own result.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cycle(pub(super) usize);

impl Shape {
    /// Creates a graph of `vertices` vertices without edges.
    pub(super) fn new(vertices: usize) -> Self {
        Self { edges: vec![Vec::new(); vertices] }
    }

    /// Adds a vertex and returns its number.
    pub(super) fn add_vertex(&mut self) -> usize {
        self.edges.push(Vec::new());
        self.edges.len() - 1
    }

    /// Adds an edge: the vertex `user` reads an output of `input`. Both must exist.
    pub(super) fn add_edge(&mut self, input: usize, user: usize, output: u32) {
        self.edges[input].push(Edge { user, output });
    }

    /// Returns the edges that lead to the users of a vertex.
    pub(super) fn edges(&self, vertex: usize) -> &[Edge] {
        &self.edges[vertex]
    }

    /// Returns all vertices that `targets` depend on, inputs before their users. The order is
    /// ascending if the numbers allow that.
    ///
    /// # Errors
    /// Returns a vertex of a cycle.
    pub(super) fn order(&self, targets: impl Iterator<Item = usize>) -> Result<Vec<usize>, Cycle> {
        let sorted = self.sorted()?;
        let mut is_reached = vec![false; self.edges.len()];
        targets.for_each(|target| is_reached[target] = true);
        for vertex in sorted.iter().rev() {
            is_reached[*vertex] |= self.edges[*vertex].iter().any(|edge| is_reached[edge.user]);
        }
        let mut edges = self.edges.iter().enumerate();
        let ascends = edges.all(|(input, edges)| edges.iter().all(|edge| input < edge.user));
        let order = if ascends { (0..self.edges.len()).collect() } else { sorted };
        Ok(order.into_iter().filter(|vertex| is_reached[*vertex]).collect())
    }

    /// Returns all vertices, inputs before their users. The depth-first search doesn't recurse,
    /// because a graph's depth has no limit.
    fn sorted(&self) -> Result<Vec<usize>, Cycle> {
        #[derive(Clone, Copy, PartialEq)]
        enum State {
            New,
            Entered,
            Left,
        }
        let mut states = vec![State::New; self.edges.len()];
        let mut order = Vec::with_capacity(self.edges.len());
        let mut stack = Vec::new();
        for start in 0..self.edges.len() {
            stack.push(start);
            while let Some(&vertex) = stack.last() {
                match states[vertex] {
                    State::New => {
                        states[vertex] = State::Entered;
                        for Edge { user, .. } in self.edges[vertex].iter().rev() {
                            match states[*user] {
                                State::New => stack.push(*user),
                                State::Entered => return Err(Cycle(*user)),
                                State::Left => {}
                            }
                        }
                    }
                    State::Entered => {
                        states[vertex] = State::Left;
                        order.push(vertex);
                        stack.pop();
                    }
                    State::Left => {
                        stack.pop();
                    }
                }
            }
        }
        order.reverse();
        Ok(order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(vertices: usize, edges: &[(usize, usize)]) -> Shape {
        let mut shape = Shape::new(vertices);
        for (input, user) in edges {
            shape.add_edge(*input, *user, 0);
        }
        shape
    }

    #[test]
    fn inputs_come_before_their_users() {
        let order = |shape: &Shape, target| shape.order([target].into_iter());
        // A diamond, and a vertex that nothing reads.
        let ascending = shape(5, &[(0, 1), (0, 2), (1, 3), (2, 3), (0, 4)]);
        assert_eq!(order(&ascending, 3), Ok(vec![0, 1, 2, 3]));
        assert_eq!(order(&ascending, 0), Ok(vec![0]));
        let descending = shape(4, &[(3, 2), (3, 1), (2, 0), (1, 0)]);
        let sorted = order(&descending, 0).unwrap();
        assert_eq!((sorted.first(), sorted.last(), sorted.len()), (Some(&3), Some(&0), 4));
        // The same input twice.
        assert_eq!(order(&shape(2, &[(0, 1), (0, 1)]), 1), Ok(vec![0, 1]));
    }

    #[test]
    fn cycles_are_found_wherever_they_are() {
        assert_eq!(shape(1, &[(0, 0)]).order([0].into_iter()), Err(Cycle(0)));
        // A cycle outside of the target is an error too.
        let beside = shape(4, &[(0, 1), (2, 3), (3, 2)]);
        assert!(matches!(beside.order([1].into_iter()), Err(Cycle(2 | 3))));
        // A vertex that waits on the stack while another path enters it.
        let crossed = shape(4, &[(0, 1), (0, 2), (2, 1), (1, 3), (3, 2)]);
        assert!(crossed.order([3].into_iter()).is_err());
    }

    #[test]
    fn depth_has_no_limit() {
        let edges: Vec<_> = (1..200_000).map(|vertex| (vertex, vertex - 1)).collect();
        let order = shape(200_000, &edges).order([0].into_iter()).unwrap();
        assert!(order.iter().rev().copied().eq(0..200_000));
    }
}
