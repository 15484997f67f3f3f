"""`doctor`: facts about the cluster gathered at the edges, judged by pure functions."""
