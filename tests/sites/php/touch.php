<?php
// A new id with every answer; the old ones stay, or requests side by side would lose their session.
session_start();
session_regenerate_id(false);
header('Content-Type: application/json');
echo json_encode(['user' => $_SESSION['user'] ?? null]);
