"""Submissions on a leaderboard: sent there once, and what it says of them, into the log.

services/ has a module per service; whatever network there is, is there. A service's own client is optional, and used
only when it is asked for. Nothing here stores, prints or passes on a credential. Imports chain and below.
"""
