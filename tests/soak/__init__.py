"""Everything that programs do with the library, for hours, while a server does what servers do.

::

    __main__     make soak: runs it, tells, draws
    world        the server, its objects, keys that expire
    work         epochs, saves, loads, listings, children that die
    weather      faults that come and go
    measure      threads, descriptors, sockets, memory, files: every few seconds
    verdict      whether something grew
    picture      the series as one picture
"""
