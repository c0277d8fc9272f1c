"""Where files lie: in a folder of a file system, or in one of a bucket.

The one room that knows the difference. A bucket has no append, no rename and no lock:

paths.py    the folder that a user named, and what is in it
files.py    files that are whole or not there; lines that are added
locks.py    who works in a folder: a file lock, or a claim that is renewed
cache.py    a copy on this machine of what is read as files
"""
