// COLLEAGUE tree2 (worktree /work/wt/tree2) writes this file: engineer tree, leave it to them and merge main.
//! Walking a tree.
