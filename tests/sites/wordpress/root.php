<?php
// Before every page: WordPress takes its files from the folder of this run, not from where the
// links in it lead.
define('ABSPATH', getenv('SITE_ROOT'));
