"""Every way to end a process in every wait, as a matrix: it ends soon, and leaves nothing that is half done.

::

    __main__   make kills: all of it
    waits      programs that wait for a server
    endings    what ends them
    cells      one wait, one ending, one kind of server; what is there afterwards
"""
